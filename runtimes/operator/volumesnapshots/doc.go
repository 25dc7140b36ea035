// SPDX-License-Identifier: Apache-2.0

// Package volumesnapshots makes, finds and removes the VolumeSnapshots that backups of type
// snapshot are on Kubernetes.
//
//	agent    pg_backup_start ─▶ Cut: VolumeSnapshot, until creationTime ─▶ pg_backup_stop
//	           ─▶ Settle: until readyToUse ─▶ WAL ─▶ manifest
//	operator manifest ─▶ Reach ─▶ Source: what the claim of the restored pod is made of
//
// A VolumeSnapshot has its Backup's name and namespace, and annotations that say which
// lineage and backup it is, and the random number that the manifest has too. What has
// another number is another snapshot, whatever its name.
//
// It has no owner. Backups are a view of the repository, and can be lost with all of
// kubeblocks' objects and come back; what they stand for must not go with them. It is
// removed when a Backup is deleted, a policy lets it go, or its cluster is wiped out; what
// then becomes of the storage says the deletionPolicy of its class.
//
// A claim is made in the namespace of its snapshot: Kubernetes has no other way that is
// on by default. For another namespace a VolumeSnapshot is lent: one that was provisioned
// beforehand, of the same snapshot of the storage, which it retains when it goes.
package volumesnapshots
