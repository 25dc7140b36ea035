// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

// oracle answers what it was told to.
type oracle struct {
	asked Question
	plan  *restore.Plan
	err   error
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

var (
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
	if err := Serve(t.Context(), o, bytes.NewReader(in), &out); err != nil {
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
	} {
		o := &oracle{plan: plan}
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
	} {
		_, got := put(t, &oracle{err: fmt.Errorf("wrapped: %w", err)}, Question{Topic: Plan})
		if reflect.TypeOf(got) != reflect.TypeOf(err) || !reflect.DeepEqual(got, err) {
			t.Errorf("sent %T %v, got %T %v", err, err, got, got)
		}
		seen[faultOf(err).Kind] = true
	}
	for _, f := range faults {
		if !seen[f.kind] {
			t.Errorf("%s has no case", f.kind)
		}
	}
	if _, err := put(t, &oracle{err: errors.New("the disk is on fire")}, Question{Topic: Clock}); err == nil || err.Error() != "the disk is on fire" {
		t.Errorf("%v", err)
	}
	if _, err := put(t, &oracle{}, Question{Topic: "weather"}); err == nil || !strings.Contains(err.Error(), `"weather"`) {
		t.Errorf("%v", err)
	}
	if _, err := Read([]byte(`{"fault":{"kind":"OfALaterRelease","words":"no","data":{}}}`)); err == nil || err.Error() != "no" {
		t.Errorf("%v", err)
	}
	if _, err := Read([]byte("Killed\n")); err == nil {
		t.Error("read what is no answer")
	}
}
