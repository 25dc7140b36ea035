// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes"
)

// history is what of a cluster's history is asked for.
type history struct {
	since, until    string
	kinds           []string
	table, database string
	minRows         uint64
	timeline        uint32
	all, follow     bool
	output          string

	src    runtimes.Source
	from   time.Time // since and until, as they were read
	to     time.Time
	reader runtimes.HistoryReader
}

// eventKinds are all kinds.
var eventKinds = []catalog.EventKind{
	catalog.EventDrop, catalog.EventTruncate, catalog.EventRewrite, catalog.EventDelete, catalog.EventUpdate, catalog.EventInsert,
	catalog.EventCreate, catalog.EventCreateDatabase, catalog.EventDropDatabase, catalog.EventTablespace,
	catalog.EventRestorePoint, catalog.EventTimeline, catalog.EventParameters, catalog.EventGap,
}

const historyForms = "json|yaml|wide"

// historyPeriod is how far a history goes back unless somebody says.
const historyPeriod = 24 * time.Hour

func newHistoryCommand(a *app) *cobra.Command {
	var o history
	c := &cobra.Command{
		Use: "history NAME", Short: "List what happened in a cluster's databases, as its archived WAL tells", Args: oneName("cluster"),
		Long: `List what happened in a cluster's databases, as its archived WAL tells: tables that were
dropped or emptied, rows that were deleted or changed, many at once, databases, restore
points, timelines. Oldest first; below what destroyed something stands the command that
brings back the state from just before it, as a new cluster.

The archive alone is read: the cluster may be stopped or deleted. Rows are counted as
they were written to the log. "~" is what the server guessed, "≥" is at least so many.`,
		Example: `  kbcli cluster history my-pg
  kbcli cluster history my-pg --since "3 hours ago" --table msg
  kbcli cluster history my-pg --kind drop,truncate --since earliest
  kbcli cluster history my-pg --kind insert --min-rows 100000 -o json`,
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.run(c.Context(), a, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.since, "since", "", "from when on (default 24 hours ago); see kbcli help restore-time")
	f.StringVar(&o.until, "until", "", "until when")
	f.StringSliceVar(&o.kinds, "kind", nil, "only these kinds: "+joinKinds(", "))
	f.StringVar(&o.table, "table", "", "only this table, NAME or SCHEMA.NAME")
	f.StringVarP(&o.database, "database", "d", "", "only this database")
	f.Uint64Var(&o.minRows, "min-rows", 1000, "only deletes, updates and inserts of so many rows of one table in one transaction")
	f.Uint32Var(&o.timeline, "timeline", 0, "the timeline to follow (default the newest)")
	f.BoolVar(&o.all, "all", false, "also what was rolled back, and indexes")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with each new event, until ^C")
	outputFlag(c, &o.output, historyForms)
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(strings.Split(joinKinds(","), ","), noFiles))
	return c
}

func joinKinds(sep string) string {
	words := make([]string, len(eventKinds))
	for i, k := range eventKinds {
		words[i] = string(k)
	}
	return strings.Join(words, sep)
}

func (o *history) check() error {
	for _, k := range o.kinds {
		if !slices.Contains(eventKinds, catalog.EventKind(k)) {
			return usage("there is no kind of event %q: there are %s", k, joinKinds(", "))
		}
	}
	switch o.output {
	case "", "wide", "json", "yaml":
		return nil
	}
	return unknownOutput(o.output, historyForms)
}

// happened is an event as it is shown.
type happened struct {
	Event      string            `json:"event"`
	Time       time.Time         `json:"time"`
	LSN        pg.LSN            `json:"lsn"`
	XID        pg.XID            `json:"xid,omitempty"`
	Timeline   pg.TimelineID     `json:"timeline"`
	Database   string            `json:"database,omitempty"`
	Table      string            `json:"table,omitempty"`
	Kind       catalog.EventKind `json:"kind"`
	What       string            `json:"what"`
	Rows       *int64            `json:"rows,omitempty"`
	AtLeast    bool              `json:"atLeast,omitempty"` // there may be more rows
	About      bool              `json:"about,omitempty"`   // the server guessed how many rows there were
	RolledBack bool              `json:"rolledBack,omitempty"`
	// Restorable: the state from just before it can be restored.
	Restorable bool `json:"restorable"`

	weight int
}

func happenedOf(e catalog.Event, restorable bool) happened {
	h := happened{
		Event: e.LSN.String(), Time: e.Time, LSN: e.LSN, XID: e.XID, Timeline: e.Timeline, Database: e.Database, Table: e.Table,
		Kind: e.Kind, What: e.What, AtLeast: e.AtLeast, About: e.About, RolledBack: e.RolledBack, Restorable: restorable,
	}
	if e.Schema != "" {
		h.Table = e.Schema + "." + e.Table
	}
	if e.Rows >= 0 {
		h.Rows = &e.Rows
	}
	if e.Destructive() {
		h.weight = e.Weight()
	}
	return h
}

// wants tells whether an event is shown.
func (o *history) wants(e *catalog.Event) bool {
	switch {
	case e.RolledBack && !o.all:
		return false
	case len(o.kinds) > 0 && !slices.Contains(o.kinds, string(e.Kind)):
		return false
	case len(o.kinds) == 0 && e.Kind == catalog.EventInsert:
		return false
	case len(o.kinds) == 0 && !o.all && e.Object == 'i' && e.Kind != catalog.EventDrop:
		return false
	case o.database != "" && e.Database != o.database:
		return false
	case o.table != "" && e.Table != o.table && e.Schema+"."+e.Table != o.table:
		// the table goes with its database
		return e.Kind == catalog.EventDropDatabase && o.database != ""
	}
	return true
}

func (o *history) run(ctx context.Context, a *app, name string) error {
	var err error
	if o.reader, err = asker[runtimes.HistoryReader](ctx, a, "history"); err != nil {
		return err
	}
	o.src = runtimes.Source{Namespace: a.namespace, Cluster: name}
	if err := o.moments(ctx, a); err != nil {
		return err
	}
	if o.follow {
		return o.goOn(ctx, a)
	}
	events, _, err := o.read(ctx, 0, o.to)
	if err != nil {
		return err
	}
	switch o.output {
	case "json", "yaml":
		return a.value(o.output, map[string]any{"items": events})
	}
	if len(events) == 0 {
		a.note("No events found of cluster %s since %s.", name, humantime.FormatSeconds(o.from, a.zone))
		return nil
	}
	if o.table != "" {
		o.worst(a, events)
	}
	o.write(a, a.stdio.Out, nil, events)
	return nil
}

// moments reads since and until by the source's clock.
func (o *history) moments(ctx context.Context, a *app) error {
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	now, err := rt.Clock(ctx, o.src)
	if err != nil {
		return err
	}
	o.from = now.Add(-historyPeriod)
	env := humantime.Env{Now: now, Local: a.zone}
	if o.since != "" {
		m, err := humantime.Parse(o.since, env)
		if err != nil {
			return err
		}
		if o.from = m.Time; m.Keyword == humantime.Latest {
			return usage("--since latest is nothing")
		}
	}
	if o.until != "" {
		m, err := humantime.Parse(o.until, env)
		if err != nil {
			return err
		}
		o.to = m.Time
	}
	return nil
}

// read gathers the events that are shown, from an LSN on, and where the next would be
// looked for.
func (o *history) read(ctx context.Context, from pg.LSN, to time.Time) ([]happened, pg.LSN, error) {
	events, next := []happened{}, from
	q := catalog.HistoryQuery{Timeline: pg.TimelineID(o.timeline), Since: o.from, Until: to, From: from, MinRows: max(o.minRows, 1)}
	err := o.reader.History(ctx, o.src, q, func(e catalog.Event, restorable bool) error {
		next = max(next, e.LSN+1)
		if o.wants(&e) {
			events = append(events, happenedOf(e, restorable))
		}
		return nil
	})
	return events, next, err
}

// archivedLate is how long after something happened it is still printed.
const archivedLate = time.Hour

// settled is how long after something happened its names are stored for certain, as
// long as the server answers.
const settled = 5 * time.Second

// goOn prints events as they come.
func (o *history) goOn(ctx context.Context, a *app) error {
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	var widths []int
	next, first, begin := pg.LSN(0), true, o.from
	for {
		now, err := rt.Clock(ctx, o.src)
		var events []happened
		if err == nil {
			to := now.Add(-settled)
			events, next, err = o.read(ctx, next, to)
			// what was seen is not looked through again, and what is archived late is seen
			if late := to.Add(-archivedLate); late.After(begin) {
				o.from = late
			}
		}
		if ctx.Err() != nil {
			return a.watched(ctx)
		}
		if err != nil {
			return err
		}
		switch {
		case o.output == "json":
			for _, e := range events {
				text, err := json.Marshal(e)
				if err != nil {
					return err
				}
				a.say("%s", text)
			}
		case o.output == "yaml":
			for _, e := range events {
				if !first {
					a.say("---")
				}
				first = false
				if err := a.value("yaml", e); err != nil {
					return err
				}
			}
		case len(events) > 0:
			widths = o.write(a, a.stdio.Out, widths, events)
		}
		select {
		case <-ctx.Done():
			return a.watched(ctx)
		case <-time.After(watchEvery):
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
		s += " in " + h.Table
	}
	return s
}

// told is what happened, without where.
func (h *happened) told() string {
	s := h.What
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

// command restores to just before an event; "" where that cannot be.
func (o *history) command(a *app, h *happened) string {
	if h.weight == 0 || !h.Restorable {
		return ""
	}
	s := fmt.Sprintf("    kbcli cluster restore %s-before --source-cluster %s --before-event %s", o.src.Cluster, o.src.Cluster, h.Event)
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
	t := &table{header: []string{"EVENT", "TIME", "LSN", "XID", "DATABASE", "TABLE", "WHAT"}}
	if o.output == "wide" {
		t.header = append(t.header, "KIND", "TIMELINE")
	}
	for _, e := range events {
		xid := ""
		if e.XID != 0 {
			xid = strconv.FormatUint(uint64(e.XID), 10)
		}
		row := []string{e.Event, humantime.FormatSeconds(e.Time, a.zone), e.LSN.String(), xid, e.Database, e.Table, e.told()}
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
