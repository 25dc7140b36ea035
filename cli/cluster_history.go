// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"math"
	"slices"
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
	catalog.EventRestorePoint, catalog.EventTimeline, catalog.EventParameters, catalog.EventSpike, catalog.EventGap,
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
they were written to the log. "~" is what the server guessed, "≥" is at least so many. A
table that was made and dropped before its name was stored is shown by its number,
tablespace/database/file. With --follow, -o json is one object a line.

A spike is a minute or more with at least 64 MiB of WAL each, and eight times what is
usual: the median of the minutes of the hour before. The table beside it had most of
its rows.

A cluster that was made anew under a name that another had begins a lineage of its own,
and so does one that was restored. Without --source-lineage it is the present one, or of
a deleted cluster the last; what happened before a restore is in the history of its source.`,
		Example: `  kbcli cluster history my-pg
  kbcli cluster history my-pg --since "3 hours ago" --table msg
  kbcli cluster history my-pg --kind drop,truncate --since earliest
  kbcli cluster history my-pg --kind insert --min-rows 100000 -o json
  kbcli cluster history my-pg --follow --kind drop,truncate,delete`,
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
	f.StringVar(&o.src.Lineage, "source-lineage", "", "of several that had this name: the lineage, as kbcli cluster describe-backup tells it")
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
	if o.follow && o.until != "" {
		return usage("--follow goes on until ^C, and not --until a time")
	}
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
	Spike      *catalog.Spike    `json:"spike,omitempty"`
	// Restorable: the state from just before it can be restored.
	Restorable bool `json:"restorable"`

	weight int
}

func happenedOf(e catalog.Event, restorable bool) happened {
	h := happened{
		Event: e.LSN.String(), Time: e.Time, LSN: e.LSN, XID: e.XID, Timeline: e.Timeline, Database: e.Database, Table: e.Table,
		Kind: e.Kind, What: e.What, AtLeast: e.AtLeast, About: e.About, RolledBack: e.RolledBack, Spike: e.Spike, Restorable: restorable,
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
	o.src.Namespace, o.src.Cluster = a.namespace, name
	if err := o.moments(ctx, a); err != nil {
		return err
	}
	if o.output == "" || o.output == "wide" {
		o.elsewhere(ctx, a)
	}
	if o.follow {
		return o.goOn(ctx, a)
	}
	events, err := o.read(ctx, a)
	if err != nil {
		return err
	}
	switch o.output {
	case "json", "yaml":
		return a.value(o.output, map[string]any{"items": events})
	}
	if len(events) == 0 {
		o.none(a)
		return nil
	}
	if o.table != "" {
		o.worst(a, events)
	}
	o.write(a, a.stdio.Out, nil, events)
	return nil
}

// none says that nothing was found, and what there may be all the same.
func (o *history) none(a *app) {
	since := ""
	if !o.from.IsZero() {
		since = " since " + humantime.FormatSeconds(o.from, a.zone)
	}
	a.note("No events found of cluster %s%s.", o.src.Cluster, since)
	rows := func(k string) bool {
		return slices.Contains([]catalog.EventKind{catalog.EventDelete, catalog.EventUpdate, catalog.EventInsert}, catalog.EventKind(k))
	}
	if o.minRows > 1 && (len(o.kinds) == 0 || slices.ContainsFunc(o.kinds, rows)) {
		a.note("note: rows that were changed count from %d in one table and transaction on; see --min-rows", o.minRows)
	}
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

// mostEvents bounds what is gathered before it is printed.
const mostEvents = 100_000

var errMore = errors.New("there are more events")

// countsRows tells whether events of a kind are of as many rows as a query asks for.
func countsRows(kind string) bool {
	switch catalog.EventKind(kind) {
	case catalog.EventInsert, catalog.EventUpdate, catalog.EventDelete:
		return true
	}
	return false
}

// query is what is asked for: going, if somebody goes on with it.
func (o *history) query(going *catalog.Going) catalog.HistoryQuery {
	q := catalog.HistoryQuery{
		Timeline: pg.TimelineID(o.timeline), Since: o.from, Until: o.to, MinRows: max(o.minRows, 1), Undone: o.all, Going: going,
		Spikes: len(o.kinds) == 0 || slices.Contains(o.kinds, string(catalog.EventSpike)),
	}
	if len(o.kinds) > 0 && !q.Spikes && !slices.ContainsFunc(o.kinds, countsRows) {
		q.MinRows = math.MaxInt64 // who wants no rows is answered by chapters, however far back
	}
	return q
}

// read gathers the events that are shown.
func (o *history) read(ctx context.Context, a *app) ([]happened, error) {
	events := []happened{}
	err := o.reader.History(ctx, o.src, o.query(nil), func(e catalog.Event, restorable bool) error {
		if len(events) == mostEvents {
			return errMore
		}
		if o.wants(&e) {
			events = append(events, happenedOf(e, restorable))
		}
		return nil
	})
	if errors.Is(err, errMore) {
		err = nil
		a.warn("there are more events than %d: from %s on they are left out; --since, --kind and --min-rows narrow it", mostEvents, humantime.FormatSeconds(events[len(events)-1].Time, a.zone))
	}
	return events, err
}
