// SPDX-License-Identifier: Apache-2.0

package checkup

// Known is a check, for people.
type Known struct {
	Name  string `json:"name"`
	About string `json:"about"` // one sentence
}

// Doctor lists the checks of `doctor`, in its order.
func Doctor() []Known {
	return []Known{
		{"agent-running", "The process that archives and backs up runs."},
		{"agent-version", "The agent is of the same version as this program."},
		{"agent-at-boot", "Somebody starts the agent when the machine restarts."},
		{"operator-running", "On Kubernetes: the operator acts upon what is asked for."},
		{"operator-version", "On Kubernetes: the operator is of the same version as this program."},

		{"repository-reachable", "The repository can be opened and listed, and a directory be written."},
		{"repository-key", "The identity file opens what is sealed; without one backups are taken, and restores need it."},
		{"repository-lock", "No lock was left behind by somebody who is gone."},
		{"repository-space", "A directory has room for two more backups and a day of WAL."},
		{"repository-same-disk", "A directory is not on the disk of the data, so that a lost disk does not take both."},

		{"instances-running", "On Kubernetes: one server takes writes, and as many serve as the cluster asks for."},
		{"server-reachable", "PostgreSQL takes connections."},
		{"server-version", "PostgreSQL is of a release that is supported."},
		{"wal-level", "The server writes enough WAL to restore from."},
		{"wal-senders", "There is a walsender for the archive."},
		{"replication-slots", "There is a slot for the archive."},
		{"replication-role", "The role may stream WAL and take backups."},
		{"replication-connection", "The server lets the archive in to stream."},
		{"data-directory", "The data directory is the server's and can be read."},
		{"page-layout", "Pages and WAL segments have sizes that are supported."},
		{"full-page-writes", "Torn pages are repaired."},
		{"fsync", "What the server commits survives a crash of the machine."},
		{"checksums", "A damaged page can be told from a good one."},
		{"slot-room", "A server that somebody else runs bounds what it keeps for slots."},
		{"tablespaces", "All tablespaces can be read."},
		{"in-recovery", "Whether the server is a primary or a standby."},
		{"archive-mode", "Whether something else archives as well."},
		{"synchronous-standby-names", "Commits do not wait for the archive by mistake."},
		{"slot-retention", "The server keeps WAL until it is archived, and for nobody who is gone."},
		{"wal-disk", "The disk of pg_wal has room."},
		{"archive-streaming", "WAL comes in and goes to the repository."},
		{"archive-lag", "The repository is at most a minute and 1 GiB behind the server."},
		{"archive-gap", "No WAL is missing."},
		{"spool-space", "The spool and its disk have room for WAL while the repository is away."},
		{"schedule-enabled", "The policy has WAL archived: without it there is no point-in-time recovery."},
		{"backup-age", "There is a backup, no older than the schedule asks for, and the last one did not fail."},
		{"backup-window", "There are moments that can be brought back, up to the present, without a long replay."},
		{"retention-promise", "What the policy promises to keep is there, without a hole."},
		{"clock", "The server's clock is this machine's, and was not set back."},
		{"server-programs", "PostgreSQL's programs of the server's release are here, for restores."},
		{"restore-role", "There is a superuser that restored servers can be opened as."},
		{"restore-room", "There is room to restore the last backup beside the data."},
	}
}
