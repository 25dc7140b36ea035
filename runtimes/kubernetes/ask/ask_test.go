// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/engine/retention"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// oracle answers what it was told to.
type oracle struct {
	asked Question
	plan  *restore.Plan
	err   error

	events    []runtimes.HistoryEvent
	following chan struct{} // closed when a Follow has ended
}

func (o *oracle) Plan(_ context.Context, src runtimes.Source, t catalog.Target) (*restore.Plan, error) {
	o.asked = Question{Topic: Plan, Source: src, Target: t}
	return o.plan, o.err
}

func (o *oracle) Windows(_ context.Context, src runtimes.Source) ([]catalog.Window, error) {
	o.asked = Question{Topic: Windows, Source: src}
	return []catalog.Window{window}, o.err
}

func (o *oracle) Clock(_ context.Context, src runtimes.Source) (time.Time, error) {
	o.asked = Question{Topic: Clock, Source: src}
	return moment, o.err
}

func (o *oracle) History(_ context.Context, src runtimes.Source, q catalog.HistoryQuery, fn func(catalog.Event, bool) error) error {
	o.asked = Question{Topic: History, Source: src, History: &q}
	for _, e := range o.events {
		if err := fn(e.Event, e.Restorable); err != nil {
			return err
		}
	}
	return o.err
}

// FollowHistory tells of all events at once, and then that it looks.
func (o *oracle) FollowHistory(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, told func([]runtimes.HistoryEvent) error, looked func()) error {
	defer close(o.following)
	o.asked = Question{Topic: Follow, Source: src, History: &q}
	q.Going.Next = 0x4000000
	if err := told(o.events); err != nil {
		return err
	}
	for {
		looked()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (o *oracle) Lineages(_ context.Context, namespace, cluster string) ([]repository.LineageInfo, error) {
	o.asked = Question{Topic: Lineages, Source: runtimes.Source{Namespace: namespace, Cluster: cluster}}
	return []repository.LineageInfo{lineage}, o.err
}

func (o *oracle) Backup(_ context.Context, namespace, name string) (*v1alpha1.Backup, error) {
	b := &v1alpha1.Backup{}
	b.Namespace, b.Name = namespace, name
	b.Spec.ClusterRef = source.Cluster
	return b, nil
}

func (o *oracle) Verify(_ context.Context, b *v1alpha1.Backup, progress func(done, total int64)) (*restore.Report, error) {
	o.asked = Question{Topic: Verify, Source: runtimes.Source{Namespace: b.Namespace, Cluster: b.Spec.ClusterRef}, Backup: b.Name}
	progress(1, 2)
	return &restore.Report{Backup: b.Name, Files: 3}, o.err
}

func (o *oracle) Expiry(_ context.Context, namespace, policy string) (*runtimes.Expiry, error) {
	o.asked = Question{Topic: Expiry, Source: runtimes.Source{Namespace: namespace, Cluster: source.Cluster}, Policy: policy}
	e := expiry
	e.Input.Tails = map[pg.Segment]pg.LSN{{Timeline: 1}: 1}
	return &e, o.err
}

func (o *oracle) Examine(_ context.Context, src runtimes.Source) ([]runtimes.Examined, error) {
	o.asked = Question{Topic: Examine, Source: src}
	return examined, o.err
}

var (
	lineage  = repository.LineageInfo{ID: "my-pg-1", Namespace: "shop", Cluster: "my-pg", SystemID: 7210000000000000001, Major: 15, SegmentSize: 16 << 20, Created: moment}
	examined = []runtimes.Examined{{Subject: "cluster shop/my-pg", Findings: []checkup.Finding{{Check: "clock", Level: checkup.Warn, Evidence: "no", Next: "date"}}}}
	expiry   = runtimes.Expiry{
		Repository: "r", Lineage: "my-pg-1", Grace: time.Hour, Restoring: true,
		Input:  retention.Input{Now: moment, TTL: time.Hour, SegmentSize: 16 << 20, Backups: []retention.Backup{{Name: "b", Stop: 0x2000000, StopTime: moment}}, WAL: []retention.Run{{Timeline: 1, From: 1, To: 5}}},
		List:   retention.List{Backups: []string{"b"}, WAL: []retention.Run{{Timeline: 1, From: 1, To: 2}}},
		Marked: retention.Marks{Seen: moment, Elapsed: time.Minute, Backups: map[string]retention.Mark{"b": {Since: moment, At: time.Second}}},
		Step:   retention.Step{Marks: retention.Marks{WAL: []retention.MarkedRun{{Run: retention.Run{Timeline: 1, From: 1, To: 2}, Mark: retention.Mark{At: 1}}}}},
	}
	dropped = runtimes.HistoryEvent{Event: catalog.Event{LSN: 0x3000028, Timeline: 1, Time: moment, XID: 752, Kind: catalog.EventDrop, What: "DROP TABLE", Database: "postgres", Schema: "public", Table: "msg", Object: 'r', Rows: -1}, Restorable: true}

	moment = time.Date(2023, 4, 17, 11, 56, 40, 123456000, time.UTC)
	window = catalog.Window{Timeline: 2, Backup: "b", From: moment.Add(-time.Hour), To: moment, FromLSN: 0x2000028, ToLSN: 0x5000000}
	target = catalog.Target{Time: moment, Exclusive: true, Timeline: 2}
	source = runtimes.Source{Namespace: "shop", Cluster: "my-pg", Lineage: "my-pg-1"}
)

func put(t *testing.T, o *oracle, q Question) (Answer, error) {
	t.Helper()
	in, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Serve(t.Context(), o, "1.2", bytes.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	return Read(out.Bytes())
}

func TestAnswers(t *testing.T) {
	plan := &restore.Plan{
		Lineage: "my-pg-1", SystemID: 7210000000000000001, Major: 15, Timeline: 2, Target: "x", Time: moment, Window: window,
		StopLSN: 0x3000028, EndLSN: 0x3000100, FirstLost: &restore.Commit{XID: 752, Time: moment, What: "DROP TABLE public.msg"},
	}
	for _, c := range []struct {
		q    Question
		want Answer
	}{
		{Question{Topic: Plan, Source: source, Target: target}, Answer{Plan: plan}},
		{Question{Topic: Plan, Source: source, Target: catalog.Target{At: &catalog.Found{Stop: catalog.Stop{LSN: 0x3000028, Inclusive: true}, Backup: "b"}}}, Answer{Plan: plan}},
		{Question{Topic: Windows, Source: source}, Answer{Windows: []catalog.Window{window}}},
		{Question{Topic: Clock, Source: source}, Answer{Now: moment}},
		{Question{Topic: History, Source: source, History: &catalog.HistoryQuery{Timeline: 2, Since: moment, MinRows: 9, Undone: true, Spikes: true}}, Answer{Events: []runtimes.HistoryEvent{dropped}}},
		{Question{Topic: Lineages, Source: runtimes.Source{Namespace: "shop", Cluster: "my-pg"}}, Answer{Lineages: []repository.LineageInfo{lineage}}},
		{Question{Topic: Expiry, Source: runtimes.Source{Namespace: "shop", Cluster: "my-pg"}, Policy: "p"}, Answer{Expiry: &expiry}},
		{Question{Topic: Examine, Source: source}, Answer{Examined: examined}},
	} {
		c.want.Release = "1.2"
		o := &oracle{plan: plan, events: []runtimes.HistoryEvent{dropped}}
		got, err := put(t, o, c.q)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(c.q, o.asked) {
			t.Errorf("asked %+v, arrived %+v", c.q, o.asked)
		}
		if !reflect.DeepEqual(c.want, got) {
			t.Errorf("%s (-want +got):\n%s", c.q.Topic, cmp.Diff(fmt.Sprintf("%+v", c.want), fmt.Sprintf("%+v", got)))
		}
	}
}

// TestFaults: an error arrives as the type that it left as, and says the same.
func TestFaults(t *testing.T) {
	seen := map[string]bool{}
	for _, err := range []error{
		&catalog.OutsideWindowError{Target: target, Windows: []catalog.Window{window}, Elsewhere: []catalog.Window{window}, ClockSetBack: true},
		&catalog.GapError{Target: target, Before: window, After: window, Gap: &repository.Gap{Reason: "the spool was full"}},
		&catalog.NoBackupError{Name: "b"},
		&catalog.NoTimelineError{Timeline: 7},
		&catalog.PositionError{LSN: 0x1000000, After: 0x2000188, Backup: "b", Consistent: 0x2000110, End: 0x3000000},
		&catalog.TransactionError{XID: 752, State: catalog.XactPrepared, GID: "g 1", LSN: 0x2000188},
		&catalog.NoRestorePointError{Name: "x", Known: []string{"y"}, At: moment},
		&restore.TablespaceMadeError{LSN: 0x1000028, Path: "/srv/ts"},
		&runtimes.SourceNotFoundError{Source: source},
		&repos.NotGivenError{Repository: "r"},
		&UnknownTopicError{Topic: "weather"},
		&repository.LockedError{Name: "retention", Holder: "db1 4711", Renewed: moment},
		&repository.MissingWALError{Timeline: 1, From: 0x1000000, To: 0x2000000},
		&restore.DamagedError{Backup: "b", Damage: []error{errors.New("pack 1 is not there"), errors.New("pack 2 is torn")}},
		store.NotFound(v1alpha1.KindFor[*v1alpha1.Backup](), "b"),
	} {
		_, got := put(t, &oracle{err: fmt.Errorf("wrapped: %w", err)}, Question{Topic: Plan})
		if reflect.TypeOf(got) != reflect.TypeOf(err) || !reflect.DeepEqual(got, err) {
			t.Errorf("sent %T %v, got %T %v", err, err, got, got)
		}
		seen[faultOf(err).Kind] = true
	}
	for _, value := range []error{repository.ErrNoRepository, repository.ErrSealed, blob.ErrDenied, blob.ErrNoBucket, blob.ErrUnreachable} {
		sent := fmt.Errorf("s3://demo: %w", value)
		_, got := put(t, &oracle{err: sent}, Question{Topic: Plan})
		if !errors.Is(got, value) || got.Error() != sent.Error() {
			t.Errorf("sent %v, got %v", sent, got)
		}
		seen[faultOf(sent).Kind] = true
	}
	for _, f := range faults {
		if !seen[f.kind] {
			t.Errorf("%s has no case", f.kind)
		}
	}
	if _, err := put(t, &oracle{err: errors.New("the disk is on fire")}, Question{Topic: Clock}); err == nil || err.Error() != "the disk is on fire" {
		t.Errorf("%v", err)
	}
	var unknown *UnknownTopicError
	if _, err := put(t, &oracle{}, Question{Topic: "weather"}); !errors.As(err, &unknown) || unknown.Topic != "weather" {
		t.Errorf("%v", err)
	}
	// as it was said before that was a kind
	if _, err := Read([]byte(`{"fault":{"words":"this release does not know the question \"history\""}}`)); !errors.As(err, &unknown) {
		t.Errorf("%v", err)
	}
	if _, err := Read([]byte(`{"fault":{"kind":"OfALaterRelease","words":"no","data":{}}}`)); err == nil || err.Error() != "no" {
		t.Errorf("%v", err)
	}
	if _, err := Read([]byte("Killed\n")); err == nil {
		t.Error("read what is no answer")
	}
}

// lines are an answer in parts.
func lines(t *testing.T, text []byte) (out []Answer) {
	t.Helper()
	for line := range bytes.Lines(text) {
		a, err := Read(line)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

// TestParts: a long answer is many lines, each of bounded length, and the last says so.
func TestParts(t *testing.T) {
	o := &oracle{}
	for range 1001 {
		o.events = append(o.events, dropped)
	}
	in, err := json.Marshal(Question{Topic: History, Source: source})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Serve(t.Context(), o, "1.2", bytes.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	n, all := 0, lines(t, out.Bytes())
	for i, a := range all {
		n += len(a.Events)
		if len(a.Events) > eventsAtOnce || a.More != (i < len(all)-1) {
			t.Errorf("line %d of %d has %d events, more: %v", i, len(all), len(a.Events), a.More)
		}
	}
	if n != 1001 || len(all) < 6 {
		t.Errorf("%d events in %d lines", n, len(all))
	}
	out.Reset()
	in = []byte(`{"topic":"verify","source":{"Namespace":"shop","Cluster":"my-pg"},"backup":"b"}`)
	if err := Serve(t.Context(), &oracle{}, "1.2", bytes.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, out.Bytes()); len(got) != 2 || *got[0].Progress != (Progress{1, 2}) || !got[0].More || got[1].Report.Files != 3 {
		t.Errorf("%+v", got)
	}
}

// TestHeld: whoever hangs up ends the answer; who says now and then that they are there
// does not.
func TestHeld(t *testing.T) {
	in, err := json.Marshal(Question{Topic: Follow, Source: source, Held: true, History: &catalog.HistoryQuery{Going: &catalog.Going{Next: 0x3000000}}})
	if err != nil {
		t.Fatal(err)
	}
	o := &oracle{events: []runtimes.HistoryEvent{dropped}, following: make(chan struct{})}
	asking, typing := io.Pipe()
	reading, printing := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), o, "1.2", asking, printing) }()
	if _, err := typing.Write(in); err != nil {
		t.Fatal(err)
	}
	answers := json.NewDecoder(reading)
	for i := range 3 {
		var a Answer
		if err := answers.Decode(&a); err != nil {
			t.Fatal(err)
		}
		if i == 0 && (len(a.Events) != 1 || a.Going == nil || a.Going.Next != 0x4000000 || !a.More) || i > 0 && (len(a.Events) > 0 || a.Going == nil) {
			t.Errorf("%d: %+v", i, a)
		}
		if i == 1 {
			if _, err := typing.Write([]byte{'\n'}); err != nil {
				t.Fatal(err)
			}
		}
	}
	go func() { _, _ = io.Copy(io.Discard, reading) }()
	if err := typing.Close(); err != nil {
		t.Fatal(err)
	}
	<-o.following
	if err := <-served; err != nil {
		t.Error(err)
	}
	if o.asked.History.Going.Next != 0x4000000 { // it went on from what it was asked for
		t.Errorf("%+v", o.asked.History.Going)
	}
}
