// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes"
)

// preview is what somebody should see before a restore.
type preview struct {
	plan      *restore.Plan
	target    catalog.Target
	name      string // of the new cluster
	namespace string // and its
	source    runtimes.Source
	now       time.Time
	zone      *time.Location
	windows   int    // how many the source has
	over      string // the directory that is restored over; empty for none
}

// summary is the preview as lines, each with its end.
func (p *preview) summary() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-16s %s\n", name, fmt.Sprintf(format, args...))
	}
	plan := p.plan
	line("Restore point", "%s   (%s, %s)", humantime.FormatExact(plan.Time, p.zone), p.utc(plan.Time), strings.Join(p.asides(), "; "))
	line("Window", "%s", p.window())
	line("Base backup", "%s (ended %s, %s%s)", plan.Backup, p.clock(plan.BackupTime, "15:04:05"), roughly(plan.BackupBytes), p.how())
	line("Replay", "%s, %s, about %s", count(plan.Segments, "WAL segment"), roughly(plan.WALBytes), about(plan.Estimate.Total()))
	switch {
	case plan.LastKept != nil:
		line("Last kept", "%s", p.commit(plan.LastKept))
	case plan.Immediate:
		line("Last kept", "what the backup holds")
	default:
		line("Last kept", "what the backup holds: no commit is known between it and the restore point")
	}
	switch {
	case plan.FirstLost != nil:
		line("First lost", "%s", p.commit(plan.FirstLost))
	case plan.Immediate:
		line("First lost", "everything after the backup")
	default:
		line("First lost", "nothing: no later commit is known")
	}
	if len(plan.Raised) > 0 {
		var all []string
		for _, s := range plan.Raised {
			all = append(all, fmt.Sprintf("%s = %d", s.Name, s.Value))
		}
		line("Settings", "raised by the WAL: %s", strings.Join(all, ", "))
	}
	if n := len(plan.Made); n > 0 {
		others := ""
		if n > 1 {
			others = fmt.Sprintf(" and %d more", n-1)
		}
		line("Tablespaces", "made on the way: %s%s; the new cluster has its own directories for them", plan.Made[0].Path, others)
	}
	for _, w := range plan.Warnings {
		line("Warning", "%s", w)
	}
	if p.over != "" {
		line("Over", "%s, which becomes that of the new cluster %q; what differs in it is lost", p.over, p.name)
		return b.String()
	}
	name, source := p.name, p.source.Cluster
	if p.namespace != p.source.Namespace {
		name, source = p.namespace+"/"+name, p.source.Namespace+"/"+source
	}
	line("Into", "new cluster %q; %q is not touched", name, source)
	return b.String()
}

// how the files of the base backup come, where they do not come from the repository.
func (p *preview) how() string {
	switch {
	case p.plan.Snapshot == "":
		return ""
	case p.plan.Copied:
		return "; copied from its snapshot, which is on another file system"
	}
	return "; a clone of its snapshot"
}

func (p *preview) asides() []string {
	out := []string{ago(p.now.Sub(p.plan.Time))}
	switch {
	case p.target.Latest:
		out = append(out, "the latest that is kept")
	case p.plan.Immediate:
		out = append(out, "the end of the backup")
	case p.target.LSN != 0 || p.target.XID != 0:
		out = append(out, p.record())
	case p.target.Name != "":
		out = append(out, p.target.String())
	case p.target.Exclusive:
		out = append(out, "commits of that very moment are lost")
	}
	return out
}

// record is the record that the restore stops at.
func (p *preview) record() string {
	how := "before"
	if p.plan.Inclusive {
		how = "after"
	}
	at := fmt.Sprintf("%s the record at %s", how, p.plan.StopLSN)
	if p.target.XID != 0 {
		return fmt.Sprintf("%s, the end of transaction %d", at, p.target.XID)
	}
	return at
}

// window is the window that the restore point lies in.
func (p *preview) window() string {
	w := p.plan.Window
	if p.plan.Immediate {
		return fmt.Sprintf("%s on timeline %s, the end of the backup", p.clock(w.To, "15:04:05 -07:00"), w.Timeline)
	}
	gaps := "no gaps"
	if p.windows > 1 {
		gaps = fmt.Sprintf("one of %d with gaps between", p.windows)
	}
	from, to := inward(w.From, w.To)
	return fmt.Sprintf("%s … %s on timeline %s, %s", p.clock(from, "15:04:05"), p.clock(to, "15:04:05 -07:00"), w.Timeline, gaps)
}

func (p *preview) commit(c *restore.Commit) string {
	s := fmt.Sprintf("xid %d committed %s", c.XID, p.clock(c.Time, "15:04:05.999999"))
	switch {
	case c.What != "":
		s += "   " + c.What
	case c.Dropped > 0:
		s += fmt.Sprintf("   DROP TABLE or TRUNCATE (%s)", count(c.Dropped, "relation file"))
	}
	return s
}

// clock is a moment on the reader's clock, with its date if that is not the
// restore point's.
func (p *preview) clock(t time.Time, layout string) string {
	t = t.In(p.zone)
	if t.Format(time.DateOnly) != p.plan.Time.In(p.zone).Format(time.DateOnly) {
		layout = time.DateOnly + " " + layout
	}
	return t.Format(layout)
}

// utc is a moment in UTC, with its date if that is not the reader's.
func (p *preview) utc(t time.Time) string {
	layout := "15:04:05.999999Z"
	if t.UTC().Format(time.DateOnly) != t.In(p.zone).Format(time.DateOnly) {
		layout = time.DateOnly + " " + layout
	}
	return t.UTC().Format(layout)
}

// ago is how long before now, in one unit.
func ago(d time.Duration) string {
	for _, u := range []struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int(d / u.d); n > 0 {
			return count(n, u.name) + " before now"
		}
	}
	return "now"
}

// inward cuts two moments to the second, both of them inside what they bound; if
// no second is, they are as they were.
func inward(from, to time.Time) (time.Time, time.Time) {
	first, last := from.Truncate(time.Second), to.Truncate(time.Second)
	if first.Before(from) {
		first = first.Add(time.Second)
	}
	if first.After(last) {
		return from, to
	}
	return first, last
}

// roughly is a size without the digits that an estimate does not have: "61 MB".
func roughly(n int64) string {
	s := v1alpha1.FormatSize(n)
	if whole, rest, ok := strings.Cut(s, "."); ok && len(whole) > 1 {
		_, unit, _ := strings.Cut(rest, " ")
		return whole + " " + unit
	}
	return s
}
