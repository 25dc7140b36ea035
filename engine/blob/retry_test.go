// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"context"
	"errors"
	"fmt"
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

var impatient = blob.RetryOptions{Min: time.Microsecond, Max: time.Millisecond}

// A place where a quarter of all calls fails in one way or another must look
// like one where none does.
func TestRetryConforms(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			blobtest.Run(t, func(*testing.T) blob.Store {
				return blob.Retry(fault.New(mem.New(nil), seed,
					fault.Rule{Chance: 0.1, Action: fault.Fail(nil)},
					fault.Rule{Chance: 0.1, Action: fault.FailAfter(nil)},
					fault.Rule{Verb: blob.VerbGet, Chance: 0.1, Action: fault.Cut(700)},
					fault.Rule{Verb: blob.VerbList, Chance: 0.3, Action: fault.Cut(900)},
				), impatient)
			})
		})
	}
}

func TestRetryWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fault.New(mem.New(nil), 1, fault.Rule{Action: fault.Fail(nil)})
		var waits []time.Duration
		r := blob.Retry(f, blob.RetryOptions{
			Min: time.Second, Max: 5 * time.Second, MaxElapsed: 12 * time.Second,
			Rand: func() float64 { return 0.5 },
			Notify: func(e blob.RetryEvent) {
				if e.Verb != blob.VerbStat || e.Key != "k" || e.Attempt != len(waits)+1 || !errors.Is(e.Err, blob.ErrUnreachable) {
					t.Errorf("event %+v", e)
				}
				waits = append(waits, e.Wait)
			},
		})
		start := time.Now()
		_, err := r.Stat(t.Context(), "k")
		if !errors.Is(err, blob.ErrUnreachable) || !strings.Contains(err.Error(), "gave up after 7 tries") {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d != 12*time.Second {
			t.Errorf("gave up after %s", d)
		}
		want := []time.Duration{500, 1000, 2000, 2500, 2500, 2500, 2500}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if diff := cmp.Diff(want, waits); diff != "" {
			t.Errorf("waits (-want +got):\n%s", diff)
		}
	})
}

func TestRetryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fault.New(mem.New(nil), 1, fault.Rule{Action: fault.Fail(nil)})
		r := blob.Retry(f, blob.RetryOptions{MaxElapsed: -1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		err := r.Put(ctx, "k", strings.NewReader("x"))
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, blob.ErrUnreachable) || time.Since(start) != time.Hour {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		// Nothing else is tried twice.
		for _, kind := range []error{blob.ErrDenied, blob.ErrNoBucket, blob.ErrNoSpace, blob.ErrExist, blob.ErrNotExist, errors.New("x")} {
			f.Set(fault.Rule{Action: fault.Fail(kind)})
			before := len(f.Events())
			if err := r.Put(ctx, "k", strings.NewReader("x")); !errors.Is(err, kind) {
				t.Errorf("%v became %v", kind, err)
			}
			if n := len(f.Events()) - before; n != 1 {
				t.Errorf("%v: %d tries", kind, n)
			}
		}
	})
}

func TestRetryPutKnowsItsOwn(t *testing.T) {
	for _, test := range []struct {
		name  string
		there string // by somebody else
		rules []fault.Rule
		want  error
	}{
		{"answer lost", "", []fault.Rule{{Verb: blob.VerbPut, Nth: 1, Action: fault.FailAfter(nil)}}, nil},
		{"answers lost", "", []fault.Rule{{Verb: blob.VerbPut, Nth: 1, Action: fault.FailAfter(nil)}, {Verb: blob.VerbPut, Nth: 2, Action: fault.Fail(nil)}}, nil},
		{"comparison hampered", "", []fault.Rule{
			{Verb: blob.VerbPut, Nth: 1, Action: fault.FailAfter(nil)},
			{Verb: blob.VerbStat, Nth: 1, Action: fault.Fail(nil)},
			{Verb: blob.VerbGet, Nth: 1, Action: fault.Cut(3)},
		}, nil},
		{"comparison refused", "", []fault.Rule{
			{Verb: blob.VerbPut, Nth: 1, Action: fault.FailAfter(nil)},
			{Verb: blob.VerbGet, Action: fault.Fail(blob.ErrDenied)},
		}, blob.ErrDenied},
		{"there before", "content", nil, blob.ErrExist},
		{"another there", "xontent", []fault.Rule{{Verb: blob.VerbPut, Nth: 1, Action: fault.FailAfter(nil)}}, blob.ErrExist},
		{"a longer one", "content!", []fault.Rule{{Verb: blob.VerbPut, Nth: 1, Action: fault.Fail(nil)}}, blob.ErrExist},
		{"deleted meanwhile", "", []fault.Rule{
			{Verb: blob.VerbPut, Nth: 1, Action: fault.FailAfter(nil)},
			{Verb: blob.VerbStat, Action: fault.Fail(blob.ErrNotExist)},
		}, blob.ErrExist},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fault.New(mem.New(nil), 1)
			if test.there != "" {
				if err := f.Put(t.Context(), "k", strings.NewReader(test.there)); err != nil {
					t.Fatal(err)
				}
			}
			f.Set(test.rules...)
			err := blob.Retry(f, impatient).Put(t.Context(), "k", strings.NewReader("content"))
			if !errors.Is(err, test.want) || (err != nil) != (test.want != nil) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestRetryGetResumes(t *testing.T) {
	content := strings.Repeat("0123456789", 100)
	for _, test := range []struct {
		name           string
		offset, length int64
		rules          []fault.Rule
	}{
		{"whole", 0, -1, []fault.Rule{{Nth: 1, Action: fault.Cut(300)}, {Nth: 2, Action: fault.Fail(nil)}, {Nth: 3, Action: fault.Cut(1)}}},
		{"at the first byte", 0, -1, []fault.Rule{{Times: 5, Action: fault.Cut(0)}}},
		{"range", 100, 200, []fault.Rule{{Nth: 1, Action: fault.Cut(30)}, {Nth: 2, Action: fault.Cut(30)}}},
		{"over the end", 900, 200, []fault.Rule{{Nth: 1, Action: fault.Cut(30)}}},
		{"to the end", 900, -1, []fault.Rule{{Nth: 1, Action: fault.Cut(99)}}},
		{"not opened", 0, -1, []fault.Rule{{Times: 3, Action: fault.Fail(nil)}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fault.New(mem.New(nil), 1)
			if err := f.Put(t.Context(), "k", strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			f.Set(test.rules...)
			m := blob.Measure(f)
			got, err := readAll(blob.Retry(m, impatient), "k", test.offset, test.length)
			want := content[test.offset:]
			if test.length >= 0 {
				want = want[:min(test.length, int64(len(want)))]
			}
			if got != want || err != nil {
				t.Errorf("got %d bytes of %d, %v", len(got), len(want), err)
			}
			if n := m.Counters().Get.Bytes; n != int64(len(want)) {
				t.Errorf("%d bytes were fetched for %d", n, len(want))
			}
		})
	}
}

// cutEOF ends bodies early as a broken connection does, not as a Store should.
type cutEOF struct{ blob.Store }

func (c cutEOF) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	rc, err := c.Store.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(rc, 4), errReader{}), rc}, nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestRetryGetUnexpectedEOF(t *testing.T) {
	s := mem.New(nil)
	if err := s.Put(t.Context(), "k", strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	for _, length := range []int64{8, 10} {
		if got, err := readAll(blob.Retry(cutEOF{s}, impatient), "k", 0, length); got != "0123456789"[:length] || err != nil {
			t.Errorf("%d bytes: got %q, %v", length, got, err)
		}
	}
}

func TestRetryGetSeesAnotherObject(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(blob.Store) error
		want string
	}{
		{"replaced", func(s blob.Store) error { return s.Replace(t.Context(), "k", strings.NewReader("9876543210")) }, "was replaced"},
		{"deleted", func(s blob.Store) error { return s.Delete(t.Context(), "k") }, blob.ErrNotExist.Error()},
	} {
		s := mem.New(nil)
		if err := s.Put(t.Context(), "k", strings.NewReader("0123456789")); err != nil {
			t.Fatal(err)
		}
		r := blob.Retry(fault.New(s, 1, fault.Rule{Nth: 1, Action: fault.Cut(4)}), impatient)
		rc, err := r.Get(t.Context(), "k", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 4)
		if _, err := io.ReadFull(rc, first); err != nil {
			t.Fatal(err)
		}
		if err := test.do(s); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rc)
		if string(first)+string(got) != "0123" || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %q, %v", test.name, got, err)
		}
		if _, again := rc.Read(make([]byte, 1)); again != err {
			t.Errorf("%s: the next read says %v", test.name, again)
		}
		rc.Close()
	}
}

func TestRetryGetTakesAnotherObjectFromTheStart(t *testing.T) {
	s := mem.New(nil)
	if err := s.Put(t.Context(), "k", strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	rc, err := blob.Retry(fault.New(s, 1, fault.Rule{Nth: 1, Action: fault.Cut(0)}), impatient).Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if err := s.Replace(t.Context(), "k", strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(rc); string(b) != "new" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestRetryGetAfterClose(t *testing.T) {
	s := mem.New(nil)
	if err := s.Put(t.Context(), "k", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	rc, err := blob.Retry(s, impatient).Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := rc.Close(); err != nil {
			t.Error(err)
		}
	}
	if n, err := rc.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("read after close: %d, %v", n, err)
	}
}

func TestRetryProgressBuysTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := strings.Repeat("x", 1000)
		f := fault.New(mem.New(nil), 1)
		if err := f.Put(t.Context(), "k", strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		f.Set(fault.Rule{Action: fault.Cut(1)})
		r := blob.Retry(f, blob.RetryOptions{Min: time.Second, MaxElapsed: 2 * time.Second, Rand: func() float64 { return 1 }})
		start := time.Now()
		if got, err := readAll(r, "k", 0, -1); got != content || err != nil {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if d := time.Since(start); d < 900*time.Second {
			t.Errorf("took %s", d)
		}
	})
}

func TestWithNotice(t *testing.T) {
	s := fault.New(mem.New(nil), 1, fault.Rule{Verb: blob.VerbPut, Nth: 1, Action: fault.Fail(fmt.Errorf("%w: refused", blob.ErrUnreachable))})
	r := blob.Retry(s, blob.RetryOptions{Min: time.Millisecond})
	var heard []string
	outer := blob.WithNotice(t.Context(), func(blob.RetryEvent) { t.Error("the outer one hears") })
	ctx := blob.WithNotice(outer, func(e blob.RetryEvent) { heard = append(heard, fmt.Sprint(e.Verb, " ", e.Key, " ", e.Err)) })
	if err := r.Put(ctx, "k", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"put k put k: planned fault: storage is unreachable: refused"}, heard); diff != "" {
		t.Error(diff)
	}
}
