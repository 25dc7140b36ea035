// SPDX-License-Identifier: Apache-2.0

// Package pod is what kbcli does inside a pod of a cluster on Kubernetes.
//
//	init container volume   Prepare: the data directory's place, and its content where
//	                        the cluster is another's past
//	container kbcli         Run: the Protector while the server writes; on a standby the
//	                        slot that the Protector will need when this one takes over, and
//	                        the backups that it asks a standby for
//
// Whether the server writes is asked of the server itself, over the socket that both
// containers have in common. The lock of the lineage in the repository sees to it that of
// two that believe they do one archives.
//
// A standby keeps the WAL that the repository does not have: its slot of the archive's
// name follows what the repository holds. So the archive goes on without a gap on whoever
// becomes the primary.
//
// The other way round a standby is given the WAL that it does not have and the repository
// does, by its restore_command; and Patroni asks before it makes a server the primary. Both
// ask at the door, a socket that the two containers see:
//
//	PostgreSQL ── restore_command ──▶ kbcli agent standby-wal ──────┐
//	Patroni ───── pre_promote ──────▶ kbcli agent before-promotion ─┴▶ door ─▶ keeper ─▶ repository
//
// Where commits wait for the repository, a server becomes the primary only under the lock
// of the lineage, with all that the repository holds, and with its own commits waiting from
// the first on: no acknowledged commit is lost with a primary, and none is acknowledged on
// two. The Protector takes that lock over. The reasons are in
// docs/decisions/0008-the-archive-is-asked-before-a-promotion.md.
//
// Where the operator made the volume of a VolumeSnapshot the source's files are in it.
// Prepare takes them over, under a note beside them that says whose they are and whether
// recovery has begun. A volume on which it was interrupted is asked for anew: the
// Cluster's annotation says so until the operator has made it.
//
// The note stands beside fetched files too: data that it does not speak of are another's, and
// nothing is restored over them.
//
// Prepare restores in the first pod, once. After a crash it begins anew, unless the data
// directory has come to its place, which it does whole. A failure that would be the same
// the next time is told in the Cluster and is final; one of a store that does not answer
// is not.
package pod
