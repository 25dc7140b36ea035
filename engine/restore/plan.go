// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Plan is what a restore will do.
type Plan struct {
	Lineage  string        `json:"lineage"`
	SystemID pg.SystemID   `json:"systemIdentifier"`
	Major    int           `json:"major"`
	Timeline pg.TimelineID `json:"timeline"`

	Target string    `json:"target"` // as it was asked for
	Time   time.Time `json:"time"`   // the moment that is reached

	Window catalog.Window `json:"window"`

	Backup      string    `json:"backup"`
	BackupTime  time.Time `json:"backupTime"` // when it ended
	BackupBytes int64     `json:"backupBytes"`
	StoredBytes int64     `json:"storedBytes"`
	// NeedBytes is what a disk must have room for that the files are copied to: the backup,
	// and the WAL that waits to be replayed.
	NeedBytes int64 `json:"needBytes"`
	// Snapshot is where the backup's files lie if the repository does not hold them.
	// Copied says that they are copied from there, and not cloned, because the new
	// server lies on another file system. A VolumeSnapshot is "VolumeSnapshot namespace/name".
	Snapshot string `json:"snapshot,omitempty"`
	Copied   bool   `json:"copied,omitempty"`

	// Stop is the record at which recovery ends; Inclusive tells whether it is replayed.
	StopLSN pg.LSN `json:"stopLSN"`
	// StopTimeline is what that record is of: Timeline, or one on the way to it. The
	// restored server's history leaves off there.
	StopTimeline pg.TimelineID `json:"stopTimeline"`
	Inclusive    bool          `json:"inclusive"`
	Immediate    bool          `json:"immediate,omitempty"` // as soon as the backup is consistent
	EndLSN       pg.LSN        `json:"endLSN"`              // what recovery must have reached
	// ReadLSN is the end of the last record that recovery reads: it reads the one
	// that it stops before.
	ReadLSN pg.LSN `json:"readLSN"`

	Segments int      `json:"segments"`
	WALBytes int64    `json:"walBytes"`
	Records  uint64   `json:"records"` // of WAL, about
	Estimate Estimate `json:"estimate"`

	LastKept  *Commit `json:"lastKept,omitempty"`
	FirstLost *Commit `json:"firstLost,omitempty"`

	// Settings are the greatest that replay demands.
	Settings repository.Settings `json:"settings"`
	// Raised are those of them that the WAL raises over what they were at the backup.
	Raised      []Raised                `json:"settingsRaised,omitempty"`
	Tablespaces []repository.Tablespace `json:"tablespaces,omitempty"`
	// Made are the tablespaces that the WAL makes on the way. They get directories beside
	// those of the others; what the source has at their old places is not touched.
	Made []MadeTablespace `json:"tablespacesMade,omitempty"`

	// Prepared are the transactions that will be prepared again.
	Prepared []catalog.Prepared `json:"prepared,omitempty"`
	// Warnings say what else the target could mean, and what will surprise.
	Warnings []string `json:"warnings,omitempty"`

	lastEnded *walindex.Transaction // whose time PostgreSQL will name as the last

	rates    Rates
	patches  []patch // of the WAL that is replayed
	path     catalog.Path
	manifest *repository.Manifest
	lineage  *repository.Lineage
}

// Commit is a transaction beside the stop.
type Commit struct {
	XID     pg.XID    `json:"xid"`
	Time    time.Time `json:"time"`
	LSN     pg.LSN    `json:"lsn"`
	Dropped int       `json:"dropped,omitempty"` // files of relations that it removed
	What    string    `json:"what,omitempty"`    // what it destroyed, where that is known: "DROP TABLE public.msg"
}

func commitOf(t *walindex.Transaction) *Commit {
	if t == nil {
		return nil
	}
	return &Commit{XID: t.XID, Time: t.Time.Time(), LSN: t.Start, Dropped: len(t.Dropped)}
}

// Raised is a setting that was raised after the backup, and at which value replay needs it.
type Raised struct {
	Name  string `json:"name"` // as PostgreSQL has it
	Value int    `json:"value"`
}

func raisedOf(was, is repository.Settings) []Raised {
	var out []Raised
	for _, s := range []struct {
		name    string
		was, is int
	}{
		{"max_connections", was.MaxConnections, is.MaxConnections},
		{"max_worker_processes", was.MaxWorkerProcesses, is.MaxWorkerProcesses},
		{"max_wal_senders", was.MaxWalSenders, is.MaxWalSenders},
		{"max_prepared_transactions", was.MaxPreparedXacts, is.MaxPreparedXacts},
		{"max_locks_per_transaction", was.MaxLocksPerXact, is.MaxLocksPerXact},
	} {
		if s.is > s.was {
			out = append(out, Raised{s.name, s.is})
		}
	}
	return out
}

// MinimalWALError says that WAL on the way does not tell of every change: recovery would
// end there.
type MinimalWALError struct{ LSN pg.LSN }

func (e *MinimalWALError) Error() string {
	return fmt.Sprintf("the server ran with wal_level=minimal from %s on: WAL from then does not tell of every change, and no recovery passes it", e.LSN)
}

// MakePlan turns a resolved target into a plan.
func MakePlan(ctx context.Context, c *catalog.Catalog, t catalog.Target) (*Plan, error) {
	r, err := c.Resolve(ctx, t)
	if err != nil {
		return nil, err
	}
	if r.Minimal != 0 {
		return nil, &MinimalWALError{r.Minimal}
	}
	made, err := madeOf(r.Tablespaces)
	if err != nil {
		return nil, err
	}
	info := c.Lineage().Info()
	p := &Plan{
		Lineage: info.ID, SystemID: info.SystemID, Major: info.Major, Timeline: r.Path.Timeline,
		Target: t.String(), Time: r.Time, Window: r.Window,
		Backup: r.Backup.Name, BackupTime: r.Backup.StopTime,
		BackupBytes: r.Backup.DataBytes, StoredBytes: r.Backup.Stored,
		StopLSN: r.Stop.LSN, Inclusive: r.Stop.Inclusive, Immediate: r.Stop.Immediate, EndLSN: r.Stop.Next, ReadLSN: r.ReadTo,
		LastKept: commitOf(r.LastKept), FirstLost: commitOf(r.FirstLost),
		Settings: r.Settings, Raised: raisedOf(r.Backup.Settings, r.Settings), Tablespaces: r.Backup.Tablespaces, Made: made, Prepared: r.Prepared, Warnings: r.Warnings,
		lastEnded: r.LastEnded, Records: r.Records,
		path: r.Path, manifest: r.Backup, lineage: c.Lineage(),
	}
	if p.StopTimeline = r.Path.TimelineAt(p.StopLSN); p.Immediate {
		p.StopTimeline = r.Backup.Timeline
	}
	size := info.SegmentSize
	first, last := size.Number(r.Backup.StartLSN), size.Number(max(p.ReadLSN, 1)-1)
	p.Segments = int(last-first) + 1
	p.WALBytes = int64(p.EndLSN - r.Backup.StartLSN)
	p.NeedBytes = p.BackupBytes + min(int64(p.Segments), feedAhead+4)*int64(size) + 64<<20
	if r.Backup.Snapshot != nil {
		p.Snapshot = r.Backup.Snapshot.String()
	}
	p.estimate()
	if p.FirstLost != nil {
		p.FirstLost.What = whatWas(ctx, c, r.Path, p.FirstLost)
	}
	if p.LastKept != nil && p.LastKept.Dropped > 0 {
		p.LastKept.What = whatWas(ctx, c, r.Path, p.LastKept)
	}
	return p, nil
}

// manyRows is how many rows a transaction changes that is told of.
const manyRows = 1000

// whatWas says what a transaction destroyed, as far as that can be found out: no restore
// fails for want of words.
func whatWas(ctx context.Context, c *catalog.Catalog, path catalog.Path, tx *Commit) string {
	var worst *catalog.Event
	more := 0
	q := catalog.HistoryQuery{Timeline: path.Timeline, From: tx.LSN, To: tx.LSN + 1, MinRows: manyRows}
	err := c.History(ctx, q, func(e catalog.Event) error {
		if !e.Destructive() || e.Schema == "" {
			return nil
		}
		more++
		if worst == nil || e.Weight() > worst.Weight() {
			worst = &e
		}
		return nil
	})
	if err != nil || worst == nil {
		return ""
	}
	what := worst.What
	if worst.Rows >= 0 && !worst.About {
		what += fmt.Sprintf(" of %d rows in", worst.Rows)
	}
	what += " " + worst.Schema + "." + worst.Table
	if more > 1 {
		what += fmt.Sprintf(" and %d more", more-1)
	}
	return what
}
