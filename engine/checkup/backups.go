// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"strings"
	"time"
)

// Backups is what is known of a cluster's backups and of the moments that it can be
// brought back to.
type Backups struct {
	Names
	Now     time.Time
	Created time.Time // the cluster

	Logfile   bool     // the policy has WAL archived
	Schedules []string // of backups that are on: "datafile 0 18 * * *"
	// Due is when the policy next wanted a backup after the last that completed;
	// zero without a schedule.
	Due time.Time

	Last   *Taken // the newest that completed
	Failed *Taken // the newest that failed after Last
	Taking string // one that is being taken

	Windows []Span // oldest first
	// Replay is how much WAL there is since the last backup.
	Replay int64
	TTL    time.Duration // that the policy promises; 0 when there is none
	Most   int           // backups that the policy keeps at most; 0 is no limit
}

// Taken is a backup.
type Taken struct {
	Name   string
	Time   time.Time
	Reason string // why it failed
}

// Span is a window.
type Span struct{ From, To time.Time }

const (
	grace     = time.Hour          // a backup may take that long
	oldBackup = 8 * 24 * time.Hour // where no schedule says more

	longReplay = 24 * time.Hour // with so much WAL, which an idle server does not write
	muchReplay = 10 << 30
	mostReplay = 100 << 30
	standStill = 10 * time.Minute // more than an idle window is let stand
)

// Findings are schedule-enabled, backup-age, backup-window and retention-promise.
func (b *Backups) Findings() []Finding {
	return []Finding{b.enabled(), b.age(), b.window(), b.promise()}
}

func (b *Backups) enabled() Finding {
	const check = "schedule-enabled"
	switch {
	case b.Policy == "":
		return fail(check, "kbcli cluster list-backup-policy -n "+b.Namespace, "the cluster has no backup policy")
	case !b.Logfile:
		return warn(check, b.set("schedule.logfile.enable=true"),
			"WAL is not archived: it can be brought back to the end of a backup, and to no moment after")
	case len(b.Schedules) == 0:
		return pass(check, "WAL is archived; backups are taken when somebody asks")
	}
	return pass(check, "WAL is archived; backups: %s", strings.Join(b.Schedules, ", "))
}

func (b *Backups) age() Finding {
	const check = "backup-age"
	list := "kbcli cluster list-backup " + b.Cluster + " -n " + b.Namespace
	switch {
	case b.Last == nil && b.Failed != nil:
		return fail(check, b.backup(), "no backup has completed; the last, %s, failed: %s", b.Failed.Name, b.Failed.Reason)
	case b.Last == nil && b.Taking != "":
		return warn(check, list, "the first backup, %s, is being taken", b.Taking)
	case b.Last == nil:
		return fail(check, b.backup(), "there is no backup: nothing can be brought back")
	}
	seen := line("%s completed %s ago", b.Last.Name, span(b.Now.Sub(b.Last.Time)))
	late := !b.Due.IsZero() && b.Now.After(b.Due.Add(grace))
	switch {
	case b.Failed != nil && late:
		return fail(check, b.backup(), "%s, and %s, which came after, failed: %s", seen, b.Failed.Name, b.Failed.Reason)
	case b.Failed != nil:
		return warn(check, b.backup(), "%s, and %s, which came after, failed: %s", seen, b.Failed.Name, b.Failed.Reason)
	case late && b.Taking != "":
		return warn(check, list, "%s, one was due %s ago, and %s is being taken", seen, span(b.Now.Sub(b.Due)), b.Taking)
	case late:
		return fail(check, b.backup(), "%s, and one was due %s ago", seen, span(b.Now.Sub(b.Due)))
	case b.Due.IsZero() && b.Now.Sub(b.Last.Time) > oldBackup:
		return warn(check, b.set("schedule.datafile.enable=true"), "%s, and no schedule takes another", seen)
	}
	return pass(check, "%s", seen)
}

func (b *Backups) window() Finding {
	const check = "backup-window"
	n := len(b.Windows)
	if n == 0 {
		if b.Last == nil {
			return fail(check, b.backup(), "no moment can be brought back: that begins with a backup")
		}
		return fail(check, b.Names.describe(), "there is a backup, and no moment can be brought back")
	}
	last := b.Windows[n-1]
	still := b.Now.Sub(last.To)
	seen := line("from %s to %s", stamp(last.From), stamp(last.To))
	long := line("a restore replays up to %s of WAL", size(b.Replay))
	switch {
	case b.Logfile && still > standStill:
		return fail(check, b.Names.describe(), "%s: it has stood still for %s", seen, span(still))
	case b.Replay > mostReplay, b.Last != nil && b.Now.Sub(b.Last.Time) > longReplay && b.Replay > muchReplay:
		return warn(check, b.backup(), "%s; %s", seen, long)
	}
	return pass(check, "%s; %s", seen, long)
}

func (b *Backups) promise() Finding {
	const check = "retention-promise"
	if b.TTL == 0 || len(b.Windows) == 0 {
		return pass(check, "nothing is promised yet")
	}
	begin := b.Now.Add(-b.TTL)
	holes := 0
	for i := 1; i < len(b.Windows); i++ {
		if b.Windows[i].From.After(begin) {
			holes++
		}
	}
	first := b.Windows[0].From
	back := line("%s are promised, and it goes back %s", span(b.TTL), span(b.Now.Sub(first)))
	switch {
	case holes > 0:
		return warn(check, b.Names.describe(), "%s with %s in it", back, count(holes, "hole"))
	case b.Most > 0 && first.After(begin) && b.Created.Before(begin):
		return warn(check, b.set("retention.maxBackups=0"), "%s: at most %s are kept", back, count(b.Most, "backup"))
	}
	return pass(check, "%s", back)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
