// SPDX-License-Identifier: Apache-2.0

package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
)

// Run holds the Stores that open makes against the promises of blob.Store. Each
// call of open must give an empty one.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, blob.Store)
	}{
		{"RoundTrip", roundTrip},
		{"Ranges", ranges},
		{"PutIfAbsent", putIfAbsent},
		{"RacingPuts", racingPuts},
		{"Replace", replace},
		{"Delete", deleteTwice},
		{"Absent", absent},
		{"BadKeys", badKeys},
		{"ListOrder", listOrder},
		{"ListMany", listMany},
		{"Canceled", canceled},
		{"ShortBody", shortBody},
		{"Concurrent", concurrent},
		{"PutAgainstDelete", putAgainstDelete},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func body(s string) blob.Body { return strings.NewReader(s) }

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

func put(t *testing.T, s blob.Store, key, content string) {
	t.Helper()
	if err := s.Put(t.Context(), key, body(content)); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(ctx context.Context, s blob.Reader, key string, offset, length int64) (string, error) {
	rc, err := s.Get(ctx, key, offset, length)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(rc)
	if cerr := rc.Close(); err == nil {
		err = cerr
	}
	return string(b), err
}

func want(t *testing.T, s blob.Reader, key, content string) {
	t.Helper()
	got, err := get(t.Context(), s, key, 0, -1)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if got != content {
		t.Fatalf("get %s: %d bytes, not the %d stored, or others", key, len(got), len(content))
	}
	info, err := s.Stat(t.Context(), key)
	if err != nil {
		t.Fatalf("stat %s: %v", key, err)
	}
	if info.Key != key || info.Size != int64(len(content)) {
		t.Fatalf("stat %s: got %+v, want size %d", key, info, len(content))
	}
}

func keys(t *testing.T, s blob.Lister, prefix string) []string {
	t.Helper()
	var ks []string
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		ks = append(ks, info.Key)
	}
	return ks
}

func roundTrip(t *testing.T, s blob.Store) {
	if s.String() == "" {
		t.Error("the store has no name")
	}
	if ks := keys(t, s, ""); ks != nil {
		t.Fatalf("not empty at first: %v", ks)
	}
	big := string(random(1, 8<<20))
	contents := map[string]string{
		"empty":                    "",
		"one":                      "x",
		"a/deep/er/folder/object":  "content",
		"big/object":               big,
		"A-Z_a-z.0-9=+@/b.tar.zst": "all the bytes a key may have",
		strings.Repeat("p", 200):   "longest part",
		strings.Repeat(strings.Repeat("q", 88)+"/", 9) + strings.Repeat("q", 89): "a key with room for a short prefix",
	}
	for k, c := range contents {
		put(t, s, k, c)
	}
	for k, c := range contents {
		want(t, s, k, c)
	}
	sizes := map[string]int64{}
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		sizes[info.Key] = info.Size
	}
	wantSizes := map[string]int64{}
	for k, c := range contents {
		wantSizes[k] = int64(len(c))
	}
	if diff := cmp.Diff(wantSizes, sizes); diff != "" {
		t.Errorf("sizes in list (-want +got):\n%s", diff)
	}
	if got, err := blob.ReadAll(t.Context(), s, "big/object", 8<<20); err != nil || string(got) != big {
		t.Errorf("ReadAll: %d bytes, %v", len(got), err)
	}
}

func ranges(t *testing.T, s blob.Store) {
	const content = "0123456789"
	put(t, s, "digits", content)
	put(t, s, "empty", "")
	for _, test := range []struct {
		key            string
		offset, length int64
		want           string
	}{
		{"digits", 0, -1, content},
		{"digits", 0, 10, content},
		{"digits", 0, 11, content},
		{"digits", 0, 1, "0"},
		{"digits", 0, 0, ""},
		{"digits", 3, 4, "3456"},
		{"digits", 3, -1, "3456789"},
		{"digits", 3, 0, ""},
		{"digits", 9, 1, "9"},
		{"digits", 9, 100, "9"},
		{"digits", 10, -1, ""},
		{"digits", 10, 1, ""},
		{"digits", 11, -1, ""},
		{"digits", 1 << 40, 5, ""},
		{"digits", 0, 1 << 40, content},
		{"digits", 5, 1<<63 - 1, "56789"},
		{"empty", 0, -1, ""},
		{"empty", 0, 0, ""},
		{"empty", 0, 5, ""},
		{"empty", 5, 5, ""},
	} {
		got, err := get(t.Context(), s, test.key, test.offset, test.length)
		if err != nil || got != test.want {
			t.Errorf("get %s at %d for %d: got %q, %v; want %q", test.key, test.offset, test.length, got, err, test.want)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -2}, {-5, -1}} {
		if got, err := get(t.Context(), s, "digits", r[0], r[1]); err == nil {
			t.Errorf("get at %d for %d: got %q, want an error", r[0], r[1], got)
		}
	}
	for _, r := range [][2]int64{{0, -1}, {0, 0}, {5, 5}, {5, 0}} {
		if _, err := get(t.Context(), s, "absent", r[0], r[1]); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("get absent at %d for %d: got %v, want ErrNotExist", r[0], r[1], err)
		}
	}
}

func putIfAbsent(t *testing.T, s blob.Store) {
	put(t, s, "a/b", "first")
	for _, second := range []string{"second", "first", "", "a longer one"} {
		if err := s.Put(t.Context(), "a/b", body(second)); !errors.Is(err, blob.ErrExist) {
			t.Errorf("second put of %q: got %v, want ErrExist", second, err)
		}
		want(t, s, "a/b", "first")
	}
}

func racingPuts(t *testing.T, s blob.Store) {
	for round := range 8 {
		key := fmt.Sprintf("race/%d/lock", round)
		const n = 16
		errs := make([]error, n)
		content := func(i int) string { return strings.Repeat(string(rune('a'+i)), 1000*(i+1)) }
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				<-start
				errs[i] = s.Put(t.Context(), key, body(content(i)))
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("round %d: both %d and %d were told that they won", round, winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, blob.ErrExist):
				t.Errorf("round %d: loser %d: got %v, want ErrExist", round, i, err)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody won", round)
		}
		want(t, s, key, content(winner))
	}
}

func replace(t *testing.T, s blob.Store) {
	for _, content := range []string{"first", "second, longer", "", "third"} {
		if err := s.Replace(t.Context(), "a/b", body(content)); err != nil {
			t.Fatal(err)
		}
		want(t, s, "a/b", content)
	}
	// Readers see one content or the other, whole.
	contents := []string{string(random(2, 100_000)), string(random(3, 120_000))}
	if err := s.Replace(t.Context(), "a/b", body(contents[0])); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 20 {
			if err := s.Replace(t.Context(), "a/b", body(contents[i%2])); err != nil {
				t.Errorf("replace: %v", err)
			}
		}
	}()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		got, err := get(t.Context(), s, "a/b", 0, -1)
		if errors.Is(err, blob.ErrUnreachable) {
			continue // a body that broke and cannot be continued with another
		}
		if err != nil {
			t.Errorf("get while replaced: %v", err)
		} else if got != contents[0] && got != contents[1] {
			t.Errorf("get while replaced: a mixture of %d bytes", len(got))
		}
	}
	if err := s.Put(t.Context(), "a/b", body("put")); !errors.Is(err, blob.ErrExist) {
		t.Errorf("put after replace: got %v, want ErrExist", err)
	}
}

func deleteTwice(t *testing.T, s blob.Store) {
	put(t, s, "a/b/c", "1")
	put(t, s, "a/d", "2")
	for range 2 {
		if err := s.Delete(t.Context(), "a/b/c"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Stat(t.Context(), "a/b/c"); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("stat of deleted: got %v, want ErrNotExist", err)
		}
		if diff := cmp.Diff([]string{"a/d"}, keys(t, s, "")); diff != "" {
			t.Errorf("keys left (-want +got):\n%s", diff)
		}
	}
	for _, key := range []string{"never/was", "a/d/below", "a"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	put(t, s, "a/b/c", "again")
	want(t, s, "a/b/c", "again")
	want(t, s, "a/d", "2")
}

func absent(t *testing.T, s blob.Store) {
	put(t, s, "a/b", "object")
	for _, key := range []string{"a", "a/b/c", "a/c", "b", "a/bb"} {
		if _, err := s.Stat(t.Context(), key); !onlyAbsent(err) {
			t.Errorf("stat %s: got %v, want ErrNotExist and nothing else", key, err)
		}
		if _, err := get(t.Context(), s, key, 0, -1); !onlyAbsent(err) {
			t.Errorf("get %s: got %v, want ErrNotExist and nothing else", key, err)
		}
		if _, err := blob.ReadAll(t.Context(), s, key, 100); !onlyAbsent(err) {
			t.Errorf("ReadAll %s: got %v, want ErrNotExist and nothing else", key, err)
		}
	}
	if ks := keys(t, s, "nothing/here/"); ks != nil {
		t.Errorf("list of an empty prefix: %v", ks)
	}
}

func onlyAbsent(err error) bool {
	for _, other := range []error{blob.ErrExist, blob.ErrUnreachable, blob.ErrDenied, blob.ErrNoSpace, blob.ErrNoBucket} {
		if errors.Is(err, other) {
			return false
		}
	}
	return errors.Is(err, blob.ErrNotExist)
}

func badKeys(t *testing.T, s blob.Store) {
	ctx := t.Context()
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/..", "sp ace", "a\\b", "a\x00b", "ü", "a%2fb", "a?b", "a:b",
		strings.Repeat("x", 201), strings.Repeat("x/", 450) + "x",
	} {
		errs := map[string]error{
			"put":     s.Put(ctx, key, body("x")),
			"replace": s.Replace(ctx, key, body("x")),
			"delete":  s.Delete(ctx, key),
		}
		_, errs["stat"] = s.Stat(ctx, key)
		_, errs["get"] = get(ctx, s, key, 0, -1)
		for verb, err := range errs {
			if err == nil || errors.Is(err, blob.ErrNotExist) || errors.Is(err, blob.ErrUnreachable) {
				t.Errorf("%s %q: got %v, want it refused", verb, key, err)
			}
		}
	}
	if ks := keys(t, s, ""); ks != nil {
		t.Errorf("bad keys were stored: %v", ks)
	}
}

func shortBody(t *testing.T, s blob.Store) {
	lying := struct {
		io.ReaderAt
		sized
	}{bytes.NewReader([]byte("short")), 10}
	if err := s.Put(t.Context(), "a/b", lying); err == nil {
		t.Error("put of a body shorter than its size succeeded")
	}
	if err := s.Replace(t.Context(), "a/b", lying); err == nil {
		t.Error("replace with a body shorter than its size succeeded")
	}
	if ks := keys(t, s, ""); ks != nil {
		t.Errorf("part of a body was stored: %v", ks)
	}
}

type sized int64

func (s sized) Size() int64 { return int64(s) }
