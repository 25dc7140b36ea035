// SPDX-License-Identifier: Apache-2.0

// Package pod is what kbcli does inside a pod of a cluster on Kubernetes.
//
//	init container volume   Prepare: the data directory's place, and its content where
//	                        the cluster is another's past
//	container kbcli         Run: the Protector while the server writes; on a standby the
//	                        slot that the Protector will need when this one takes over
//
// Whether the server writes is asked of the server itself, over the socket that both
// containers have in common. The lock of the lineage in the repository sees to it that of
// two that believe they do one archives.
//
// A standby keeps the WAL that the repository does not have: its slot of the archive's
// name follows what the repository holds. So the archive goes on without a gap on whoever
// becomes the primary.
//
// Where the operator made the volume of a VolumeSnapshot the source's files are in it.
// Prepare takes them over, under a note beside them that says whose they are and whether
// recovery has begun. A volume on which it was interrupted is asked for anew: the
// Cluster's annotation says so until the operator has made it.
//
// Prepare restores in the first pod, once. After a crash it begins anew, unless the data
// directory has come to its place, which it does whole. A failure that would be the same
// the next time is told in the Cluster and is final; one of a store that does not answer
// is not.
package pod
