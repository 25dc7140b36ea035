// SPDX-License-Identifier: Apache-2.0

// Package snapshots is the custom resource definitions of VolumeSnapshots, as files inside
// the program. Kubernetes does not come with them: who runs a cluster installs them, and
// where nobody has, the addon snapshot-controller does.
//
// They are the API of kubernetes-csi/external-snapshotter and come from its module as they
// are, which each file says.
package snapshots
