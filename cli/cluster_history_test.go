// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

// errEnd ends a fake that goes on.
var errEnd = errors.New("the end")

func (f *fakeRuntime) History(_ context.Context, _ runtimes.Source, q catalog.HistoryQuery, fn func(catalog.Event, bool) error) error {
	if f.err != nil {
		return f.err
	}
	for _, e := range f.events {
		if e.Time.Before(q.Since) || !q.Until.IsZero() && e.Time.After(q.Until) || e.Rows >= 0 && !e.About && uint64(e.Rows) < q.MinRows {
			continue
		}
		if err := fn(e, e.LSN > 0x2000000); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeRuntime) FollowHistory(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, told func([]runtimes.HistoryEvent) error, _ func()) error {
	var all []runtimes.HistoryEvent
	err := f.History(ctx, src, q, func(e catalog.Event, restorable bool) error {
		all = append(all, runtimes.HistoryEvent{Event: e, Restorable: restorable})
		return nil
	})
	return errors.Join(err, told(all), errEnd)
}

func TestHistory(t *testing.T) {
	b := newBench(t)
	at := clock("2023-04-17T11:56:40.5Z")
	row := func(lsn uint64, kind catalog.EventKind, what, table string, rows int64) catalog.Event {
		e := catalog.Event{LSN: 0, Timeline: 1, Time: at, XID: 752, Kind: kind, What: what, Database: "postgres", Table: table, Rows: rows, Object: 'r'}
		e.LSN += 0x3000000
		for range lsn {
			e.LSN += 0x28
		}
		if table != "" {
			e.Schema = "public"
		}
		return e
	}
	old := row(0, catalog.EventDrop, "DROP TABLE", "old", -1)
	old.LSN = 0x1000028
	late := row(1, catalog.EventDelete, "DELETE", "msg", 5000)
	undone := row(2, catalog.EventDelete, "DELETE", "msg", 9000)
	undone.RolledBack = true
	guess := row(3, catalog.EventTruncate, "TRUNCATE", "archive", 120)
	guess.About = true
	least := row(4, catalog.EventUpdate, "UPDATE", "msg", 2000)
	least.AtLeast = true
	index := row(5, catalog.EventCreate, "CREATE INDEX", "msg_idx", -1)
	index.Object = 'i'
	point := row(8, catalog.EventRestorePoint, `restore point "x"`, "", -1)
	point.XID, point.Database = 0, ""
	two := row(7, catalog.EventDrop, "DROP TABLE", "u", -1)
	spike := row(9, catalog.EventSpike, "spike", "msg", 900000)
	spike.XID, spike.Spike = 0, &catalog.Spike{From: at.Add(-3 * time.Minute), Minutes: 3, Bytes: 600 << 20, Usual: 4 << 20}
	b.events = []catalog.Event{old, late, undone, guess, least, index, row(6, catalog.EventInsert, "INSERT", "msg", 3000), row(7, catalog.EventDrop, "DROP TABLE", "t", -1), two, point, spike}
	var got strings.Builder
	for _, line := range []string{
		"", "--table msg", "--table public.archive -o wide", "--all", "--kind insert,drop", "--min-rows 3000 --kind delete -o json",
		"--kind update -o yaml", "--kind spike -o json", "--since earliest --kind gap", "--database other", "--since 2023-04-17T12:00:00Z", "--follow --kind delete", "-n ns --kind truncate",
	} {
		args := append([]string{"cluster", "history", "my-pg"}, strings.Fields(line)...)
		out, errs, code := b.run(args...)
		got.WriteString("-- " + strings.Join(args, " ") + " --\n" + out + errs)
		if code != 0 && !strings.Contains(line, "--follow") {
			t.Errorf("%s: code %d", line, code)
		}
	}
	golden(t, "history.txt", got.String())
	b.want("", "error: there is no kind of event \"loss\": there are drop, truncate, rewrite, delete, update, insert, create, create-database, drop-database, tablespace, restore-point, timeline, parameters, spike, gap\n",
		exitUsage, "cluster", "history", "my-pg", "--kind", "loss")
	b.want("", "error: --follow goes on until ^C, and not --until a time\n", exitUsage, "cluster", "history", "c", "-f", "--until", "now")
	b.want("", "error: --source-lineage is not for --backup, which has its own\n", exitUsage, "cluster", "restore", "new", "--backup", "b", "--source-lineage", "l")
	b.want("", "error: missing cluster name\nnext: kbcli cluster history --help\n", exitUsage, "cluster", "history")
	b.want("", "error: there is no output \"name\": there are json, yaml, wide\n", exitUsage, "cluster", "history", "c", "-o", "name")
	b.want("", "error: \"xyz\" is not an event such as 0/3000028\nnext: kbcli cluster history my-pg\n", exitUsage,
		"cluster", "restore", "new", "--source-cluster", "my-pg", "--before-event", "xyz")
	b.want("", "error: --latest and --before-event are two targets: give one\n", exitUsage,
		"cluster", "restore", "new", "--source-cluster", "my-pg", "--before-event", "0/1", "--latest")
	// an event that is none
	b.plan = &restore.Plan{StopLSN: 0x3000028}
	b.want("", "error: there is no event 0/3000020 in the history of cluster \"my-pg\"\nnext: kbcli cluster history my-pg -n default\n", exitNotFound,
		"cluster", "restore", "new", "--source-cluster", "my-pg", "--before-event", "0/3000020", "--dry-run")
	if want := (catalog.Target{LSN: 0x3000020, Exclusive: true}); b.target != want {
		t.Errorf("%+v", b.target)
	}
}
