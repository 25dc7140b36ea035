// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/blobtest"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/mem"
)

func TestConformanceWithoutRules(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Store { return fault.New(mem.New(nil), 1) })
}

func filled(t *testing.T, rules ...fault.Rule) *fault.Store {
	t.Helper()
	f := fault.New(mem.New(nil), 1)
	for _, k := range []string{"a", "b", "c"} {
		if err := f.Put(t.Context(), k, strings.NewReader("0123456789")); err != nil {
			t.Fatal(err)
		}
	}
	f.Set(rules...)
	return f
}

func get(f blob.Store, key string) (string, error) {
	rc, err := f.Get(context.Background(), key, 0, -1)
	if err != nil {
		return "", err
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	return string(b), err
}

func TestActions(t *testing.T) {
	boom := errors.New("boom")
	for _, test := range []struct {
		name   string
		action fault.Action
		got    string
		err    error
	}{
		{"fail", fault.Fail(nil), "", blob.ErrUnreachable},
		{"fail with", fault.Fail(boom), "", boom},
		{"after", fault.FailAfter(boom), "", boom},
		{"cut", fault.Cut(4), "0123", blob.ErrUnreachable},
		{"cut at once", fault.Cut(0), "", blob.ErrUnreachable},
		{"nothing to cut", fault.Cut(10), "0123456789", nil},
		{"flip", fault.Flip(8 * 3), "0122456789", nil},
		{"flip beyond", fault.Flip(800), "0123456789", nil},
	} {
		f := filled(t, fault.Rule{Verb: blob.VerbGet, Key: "b", Action: test.action})
		if got, err := get(f, "b"); got != test.got || !errors.Is(err, test.err) {
			t.Errorf("%s: got %q, %v; want %q, %v", test.name, got, err, test.got, test.err)
		}
		if got, err := get(f, "a"); got != "0123456789" || err != nil {
			t.Errorf("%s: another key: %q, %v", test.name, got, err)
		}
		if diff := cmp.Diff([]fault.Event{{Verb: blob.VerbGet, Key: "b"}}, f.Events()); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestWhatIsDone(t *testing.T) {
	f := filled(t, fault.Rule{Key: "before", Action: fault.Fail(nil)}, fault.Rule{Key: "after", Action: fault.FailAfter(nil)})
	for key, there := range map[string]bool{"before": false, "after": true} {
		if err := f.Put(t.Context(), key, strings.NewReader("x")); !errors.Is(err, blob.ErrUnreachable) {
			t.Errorf("put %s: %v", key, err)
		}
		f := f
		var found bool
		for info := range f.List(t.Context(), "") {
			found = found || info.Key == key
		}
		if found != there {
			t.Errorf("%s is there: %t", key, found)
		}
	}
	f.Set(fault.Rule{Verb: blob.VerbList, Action: fault.Cut(2)})
	var keys []string
	var last error
	for info, err := range f.List(t.Context(), "") {
		if last = err; err == nil {
			keys = append(keys, info.Key)
		}
	}
	if diff := cmp.Diff([]string{"a", "after"}, keys); diff != "" || !errors.Is(last, blob.ErrUnreachable) {
		t.Errorf("cut list: %v, keys (-want +got):\n%s", last, diff)
	}
}

func TestWhen(t *testing.T) {
	for _, test := range []struct {
		name string
		rule fault.Rule
		want string // x: failed
	}{
		{"always", fault.Rule{}, "xxxxxx"},
		{"third", fault.Rule{Nth: 3}, "..x..."},
		{"twice", fault.Rule{Times: 2}, "xx...."},
		{"never", fault.Rule{Key: "z"}, "......"},
		{"other verb", fault.Rule{Verb: blob.VerbPut}, "......"},
	} {
		test.rule.Action = fault.Fail(nil)
		f := filled(t, test.rule)
		got := ""
		for range len(test.want) {
			if _, err := f.Stat(t.Context(), "a"); err != nil {
				got += "x"
			} else {
				got += "."
			}
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
	// By chance, but the same with the same seed.
	runs := map[string]bool{}
	for _, seed := range []uint64{7, 7, 8} {
		f := fault.New(mem.New(nil), seed, fault.Rule{Chance: 0.5, Action: fault.Fail(nil)})
		run := ""
		for range 64 {
			if err := f.Delete(t.Context(), "a"); err != nil {
				run += "x"
			} else {
				run += "."
			}
		}
		if n := strings.Count(run, "x"); n < 10 || n > 54 {
			t.Errorf("seed %d: %d of 64 failed", seed, n)
		}
		runs[run] = true
	}
	if len(runs) != 2 {
		t.Errorf("%d different runs of two seeds", len(runs))
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := filled(t, fault.Rule{Action: fault.Delay(time.Minute)}, fault.Rule{Verb: blob.VerbStat, Action: fault.Fail(nil)})
		start := time.Now()
		if _, err := get(f, "a"); err != nil || time.Since(start) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if _, err := f.Stat(t.Context(), "a"); !errors.Is(err, blob.ErrUnreachable) || time.Since(start) != 2*time.Minute {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Delete(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("delayed beyond its deadline: %v", err)
		}
	})
}
