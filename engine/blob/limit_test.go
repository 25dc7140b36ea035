// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/mem"
)

func TestLimit(t *testing.T) {
	for _, test := range []struct {
		name               string
		up, down           int64
		size, n            int
		wantPuts, wantGets time.Duration
	}{
		{"one", 1 << 20, 2 << 20, 4 << 20, 1, 4 * time.Second, 2 * time.Second},
		{"together", 1 << 20, 2 << 20, 1 << 20, 4, 4 * time.Second, 2 * time.Second},
		{"slow", 100, 1000, 10_000, 1, 100 * time.Second, 10 * time.Second},
		{"no limit", 0, -1, 4 << 20, 2, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := blob.Limit(mem.New(nil), test.up, test.down)
				all := func(do func(key string) error) time.Duration {
					start := time.Now()
					var wg sync.WaitGroup
					for i := range test.n {
						wg.Go(func() {
							if err := do(fmt.Sprint(i)); err != nil {
								t.Error(err)
							}
						})
					}
					wg.Wait()
					return time.Since(start)
				}
				puts := all(func(key string) error {
					return l.Put(t.Context(), key, bytes.NewReader(make([]byte, test.size)))
				})
				time.Sleep(time.Hour) // saves nothing up
				gets := all(func(key string) error {
					b, err := readAll(l, key, 0, -1)
					if len(b) != test.size {
						return fmt.Errorf("%d bytes", len(b))
					}
					return err
				})
				about(t, "puts", puts, test.wantPuts)
				about(t, "gets", gets, test.wantGets)
				time.Sleep(time.Minute) // the last timers
			})
		})
	}
}

func about(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	// The last chunk is not waited for, and of 100 bytes a second it is large.
	if got > want || got < want*9/10 {
		t.Errorf("%s took %s, want %s", what, got, want)
	}
}

func TestLimitCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := blob.Limit(mem.New(nil), 1000, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := l.Put(ctx, "k", bytes.NewReader(make([]byte, 1<<20)))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		time.Sleep(time.Minute)
	})
}

func TestUnpaced(t *testing.T) {
	var seen blob.Body
	spy := careless{mem.New(nil), func(_ context.Context, _ string, body blob.Body) error {
		seen = body
		return nil
	}}
	body := strings.NewReader("x")
	if err := blob.Limit(spy, 1, 1).Put(t.Context(), "k", body); err != nil {
		t.Fatal(err)
	}
	if seen == blob.Body(body) || blob.Unpaced(seen) != blob.Body(body) || blob.Unpaced(body) != blob.Body(body) {
		t.Error("the body below the limit is not found")
	}
}

func TestMeasure(t *testing.T) {
	f := fault.New(mem.New(nil), 1,
		fault.Rule{Verb: blob.VerbPut, Key: "fail", Action: fault.Fail(nil)},
		fault.Rule{Verb: blob.VerbGet, Key: "cut", Action: fault.Cut(2)},
		fault.Rule{Verb: blob.VerbList, Key: "fail", Action: fault.Fail(nil)},
	)
	m := blob.Measure(f)
	ctx := t.Context()
	for _, key := range []string{"a", "a", "cut", "fail"} {
		_ = m.Put(ctx, key, strings.NewReader("12345"))
	}
	_ = m.Replace(ctx, "b", strings.NewReader("123"))
	for _, key := range []string{"a", "cut", "absent"} {
		_, _ = readAll(m, key, 1, -1)
		_, _ = m.Stat(ctx, key)
	}
	for _, prefix := range []string{"", "fail"} {
		for range m.List(ctx, prefix) {
		}
	}
	_ = m.Delete(ctx, "a")
	want := blob.Counters{
		Put:     blob.Count{Requests: 4, Errors: 1, Bytes: 10},
		Replace: blob.Count{Requests: 1, Bytes: 3},
		Get:     blob.Count{Requests: 3, Errors: 1, Bytes: 6},
		Stat:    blob.Count{Requests: 3},
		List:    blob.Count{Requests: 2, Errors: 1},
		Delete:  blob.Count{Requests: 1},
	}
	if diff := cmp.Diff(want, m.Counters()); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	sum := int64(0)
	for _, v := range []blob.Verb{blob.VerbList, blob.VerbStat, blob.VerbGet, blob.VerbPut, blob.VerbReplace, blob.VerbDelete, "other"} {
		sum += want.Of(v).Requests
	}
	if sum != 14 {
		t.Errorf("all verbs together: %d requests", sum)
	}
}

func TestPrefixed(t *testing.T) {
	s := mem.New(nil)
	if err := s.Put(t.Context(), "x/y", strings.NewReader("z")); err != nil {
		t.Fatal(err)
	}
	if got := blob.Prefixed(s, "a/b").String(); got != s.String()+"/a/b" {
		t.Errorf("calls itself %s", got)
	}
	for _, prefix := range []string{"", "/", "x/", "../x"} {
		p := blob.Prefixed(s, prefix)
		if err := p.Put(t.Context(), "k", strings.NewReader("z")); err == nil {
			t.Errorf("prefix %q: put", prefix)
		}
		var err error
		for _, err = range p.List(t.Context(), "") {
		}
		if err == nil {
			t.Errorf("prefix %q: listed", prefix)
		}
	}
}
