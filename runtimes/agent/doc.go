// SPDX-License-Identifier: Apache-2.0

// Package agent protects one running cluster, on any runtime: it archives its
// WAL, takes its backups, and reports what can be reached. It acts upon objects: the
// default BackupPolicy of the cluster says whether and how WAL is archived,
// each Backup is taken in its turn, and the Cluster's status says how things
// stand.
//
//	BackupPolicy ─▶ archive.Archiver ─▶ repository ─▶ catalog ─▶ Cluster.status
//	Backup ───────▶ basebackup.Take ──▶
//
// Backups of type snapshot are made of the file system, or of the volume, where the
// runtime says that it can; one whose directory or VolumeSnapshot is gone is Failed until
// it is back.
//
// A Backup that was InProgress when the agent ended is taken up by the next one.
// Whoever runs the server runs one Protector beside it while the server runs.
//
// A datafile or incremental backup may be of a standby. A Taker beside that one reads the
// files and stores them; the Protector beside the primary, which has the lock, asks for
// it, archives the WAL that it needs and says how it ended. They talk in the Backup's status
// alone. A standby that is promoted meanwhile voids the backup.
//
// A Protector archives, backs up and lets go under the lock of its lineage in the
// repository, of which there is one however many agents a copied state directory or a
// cloned machine brings up. Who is refused says who has it, and goes on when that one
// has ended. What runs under a lock that was lost ends, and no commit that waits for the
// repository is acknowledged without it.
package agent
