// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// elsewhere tells where more of a cluster's past is: that of its name before, and that
// of what it was restored from. It is a help: what cannot be found out is not told.
func (o *history) elsewhere(ctx context.Context, a *app) {
	objects, err := a.objects(ctx)
	if err != nil {
		return
	}
	shown := o.src.Lineage
	c, err := store.Get[*v1alpha1.Cluster](ctx, objects, a.namespace, o.src.Cluster)
	if err == nil {
		if shown == "" {
			shown = c.Status.Lineage
		}
		if r := c.Spec.Restore; r != nil && r.SourceCluster != "" && shown == c.Status.Lineage {
			a.note("note: %s was restored from %s; what was before that: kbcli cluster history %s -n %s", o.src.Cluster, r.SourceCluster, r.SourceCluster, r.SourceNamespace)
		}
	}
	lister, err := asker[runtimes.LineageLister](ctx, a, "lineages")
	if err != nil {
		return
	}
	all, err := lister.Lineages(ctx, a.namespace, o.src.Cluster)
	if err != nil {
		a.note("note: not every repository could be asked for other lineages of %s: %v", o.src.Cluster, err)
	}
	if n := len(all); shown == "" && n > 0 {
		shown = all[n-1].ID
	}
	for _, l := range all {
		if l.ID != shown {
			a.note("note: %s has another lineage, begun %s: --source-lineage %s", o.src.Cluster, humantime.FormatSeconds(l.Created, a.zone), l.ID)
		}
	}
}

// worst prints what destroyed most.
func (o *history) worst(a *app, events []happened) {
	var most *happened
	for i := range events {
		e := &events[i]
		if e.weight > 0 && (most == nil || e.weight > most.weight || e.weight == most.weight && e.rows() > most.rows()) {
			most = e
		}
	}
	if most == nil {
		return
	}
	a.say("Most destructive: %s, %s, xid %d", most.words(), humantime.FormatSeconds(most.Time, a.zone), most.XID)
	if line := o.command(a, most); line != "" {
		a.say("%s", line)
	}
	a.say("")
}

func (h *happened) rows() int64 {
	if h.Rows == nil {
		return 0
	}
	return *h.Rows
}

// words is what happened, on one line: "DELETE of 5000 rows in public.msg".
func (h *happened) words() string {
	s := h.told()
	if h.Table != "" {
		s += h.in() + h.Table
	}
	return s
}

// in is what stands between what happened and where.
func (h *happened) in() string {
	if h.Rows == nil {
		return " " // DROP TABLE public.msg
	}
	return " in "
}

// told is what happened, without where.
func (h *happened) told() string {
	s := h.What
	if h.Spike != nil {
		s = fmt.Sprintf("spike: %s of WAL in %s, usually %s a minute", v1alpha1.FormatSize(int64(h.Spike.Bytes)), count(h.Spike.Minutes, "minute"), v1alpha1.FormatSize(int64(h.Spike.Usual)))
		if h.Rows != nil {
			s += "; here " + count(int(*h.Rows), "row")
		}
		return s
	}
	if h.Rows != nil {
		mark := ""
		switch {
		case h.About:
			mark = "~"
		case h.AtLeast:
			mark = "≥"
		}
		s += " of " + mark + count(int(*h.Rows), "row")
	}
	if h.RolledBack {
		s += ", rolled back"
	}
	return s
}

// command restores to just before an event, or says why that cannot be; "" where
// nothing was destroyed.
func (o *history) command(a *app, h *happened) string {
	switch {
	case h.weight == 0:
		return ""
	case !h.Restorable:
		return "    no backup reaches what was before"
	}
	s := fmt.Sprintf("    kbcli cluster restore %s-before --source-cluster %s --before-event %s", o.src.Cluster, o.src.Cluster, h.Event)
	if o.src.Lineage != "" {
		s += " --source-lineage " + o.src.Lineage
	}
	if o.src.Namespace != "default" {
		s += " -n " + o.src.Namespace
	}
	if o.timeline != 0 {
		s += fmt.Sprintf(" --timeline %d", o.timeline)
	}
	return s
}

// write prints a table, or goes on with one whose columns have widths already.
func (o *history) write(a *app, w io.Writer, widths []int, events []happened) []int {
	t := &table{header: []string{"TIME", "LSN", "XID", "DATABASE", "TABLE", "WHAT"}}
	if o.output == "wide" {
		t.header = append(t.header, "KIND", "TIMELINE")
	}
	for _, e := range events {
		xid := ""
		if e.XID != 0 {
			xid = strconv.FormatUint(uint64(e.XID), 10)
		}
		row := []string{humantime.FormatSeconds(e.Time, a.zone), e.LSN.String(), xid, e.Database, e.Table, e.told()}
		if o.output == "wide" {
			row = append(row, string(e.Kind), e.Timeline.String())
		}
		t.add(row...)
	}
	t.clean()
	begins := widths == nil
	if begins {
		widths = make([]int, len(t.header))
		widen(widths, t.header)
	}
	for _, r := range t.rows {
		widen(widths, r)
	}
	if begins {
		writeRow(w, widths, t.header)
	}
	for i, r := range t.rows {
		writeRow(w, widths, r)
		// of one transaction only once, below all it did
		if i+1 < len(events) && events[i+1].LSN == events[i].LSN && o.command(a, &events[i+1]) != "" {
			continue
		}
		if line := o.command(a, &events[i]); line != "" {
			fmt.Fprintln(w, line)
		}
	}
	return widths
}
