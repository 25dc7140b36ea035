// SPDX-License-Identifier: Apache-2.0

// Crds writes the custom resource definitions of api/v1alpha1, one file a kind,
// and its deep copies. It is controller-gen as a library, because the kinds stand in
// one Go package and in three API groups, which controller-gen's own command cannot say.
//
//	go -C tools run ./crds -api ../api/v1alpha1 -out ../deploy/helm/crds
//
// What it writes depends on the source alone, so that a test can compare.
package main
