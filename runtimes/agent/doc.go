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
// A Backup that was InProgress when the agent ended is taken up by the next one.
// Whoever runs the server runs one Protector beside it while the server runs.
package agent
