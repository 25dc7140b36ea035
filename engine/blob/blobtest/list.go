// SPDX-License-Identifier: Apache-2.0

package blobtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kbcli/kbcli/engine/blob"
)

func listOrder(t *testing.T, s blob.Store) {
	// Bytes below the slash (+-.), above it, and folders whose names begin like
	// objects beside them.
	all := []string{
		"a+z", "a-b", "a-b.d/c", "a.b", "a/b", "a/c+", "a/c-d", "a/c.d/e", "a/c/d", "a/c/dd", "a/c0", "a0", "a=", "a@", "aA", "a_",
		"B/x", "Z", "b/1", "b/10", "b/10.x", "b/2", "b-1/x", "c/c/c/c", "c/c/c.c", "c/c-c/c", "_/_", "0",
	}
	for _, k := range all {
		put(t, s, k, k)
	}
	slices.Sort(all)
	for _, prefix := range []string{
		"", "a", "a/", "a/c", "a/c/", "a/c/d", "a/c.", "a/c.d/e", "a/c.d/e/", "a-", "a-b", "b", "b/1", "b/10", "c/c", "c/c/", "c/c/c",
		"zzz", "zzz/", "a/zzz/y", "/", "//", ".", "..", "../", "../a", "./a", "a//", "a/../a", "a/c/../", " ", "B/x", "Z",
	} {
		var wantKeys []string
		for _, k := range all {
			if strings.HasPrefix(k, prefix) {
				wantKeys = append(wantKeys, k)
			}
		}
		if diff := cmp.Diff(wantKeys, keys(t, s, prefix)); diff != "" {
			t.Errorf("list %q (-want +got):\n%s", prefix, diff)
		}
		for _, after := range []string{"a-b", "a-", "a/", "a/c", "a/c/", "a/c0", "a/c.d/0", "a0", "b/1", "b/10", "b0", "Z", "~", "0", "c/c/c/c", "c/c/c/", "c/c-c/z"} {
			var got []string
			for info, err := range s.ListAfter(t.Context(), prefix, after) {
				if err != nil {
					t.Fatalf("list %q after %q: %v", prefix, after, err)
				}
				got = append(got, info.Key)
			}
			want := slices.DeleteFunc(slices.Clone(wantKeys), func(k string) bool { return k <= after })
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("list %q after %q (-want +got):\n%s", prefix, after, diff)
			}
		}
	}
	for info, err := range s.List(t.Context(), "") {
		if err != nil || info.Size != int64(len(info.Key)) {
			t.Errorf("list: %+v, %v", info, err)
		}
	}
}

// many is enough to cross the pages of S3, which hold 1,000 keys.
const many = 2500

func listMany(t *testing.T, s blob.Store) {
	var all []string
	for i := range many {
		all = append(all, fmt.Sprintf("many/%d/%d-%d", i%7, i%50, i))
	}
	work := make(chan string)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for k := range work {
				if err := s.Put(t.Context(), k, body("x")); err != nil {
					t.Errorf("put %s: %v", k, err)
				}
			}
		})
	}
	for _, k := range all {
		work <- k
	}
	close(work)
	wg.Wait()
	slices.Sort(all)
	if diff := cmp.Diff(all, keys(t, s, "many/")); diff != "" {
		t.Errorf("list of many (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(all, keys(t, s, "")); diff != "" {
		t.Errorf("list of all (-want +got):\n%s", diff)
	}
	for _, stop := range []int{1, 10, 1000, 1001, 2000} {
		var got []string
		for info, err := range s.List(t.Context(), "many/") {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, info.Key); len(got) == stop {
				break
			}
		}
		if diff := cmp.Diff(all[:stop], got); diff != "" {
			t.Errorf("list stopped after %d (-want +got):\n%s", stop, diff)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, last := 0, error(nil)
	for _, err := range s.List(ctx, "many/") {
		if last != nil {
			t.Errorf("after the error %v the list went on", last)
		}
		last = err
		if n++; n == 10 {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("list canceled at 10 gave %d results, the last error %v", n, last)
	}
}

func canceled(t *testing.T, s blob.Store) {
	put(t, s, "there", "content")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, statErr := s.Stat(ctx, "there")
	_, getErr := get(ctx, s, "there", 0, -1)
	var listErr error
	for _, err := range s.List(ctx, "") {
		listErr = err
	}
	for verb, err := range map[blob.Verb]error{
		blob.VerbStat: statErr, blob.VerbGet: getErr, blob.VerbList: listErr,
		blob.VerbPut:     s.Put(ctx, "new", body("x")),
		blob.VerbReplace: s.Replace(ctx, "there", body("x")),
		blob.VerbDelete:  s.Delete(ctx, "there"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("canceled %s: got %v", verb, err)
		}
		if errors.Is(err, blob.ErrNotExist) || errors.Is(err, blob.ErrExist) {
			t.Errorf("canceled %s: got %v, which says more than is known", verb, err)
		}
	}
	want(t, s, "there", "content")
	if diff := cmp.Diff([]string{"there"}, keys(t, s, "")); diff != "" {
		t.Errorf("keys after canceled verbs (-want +got):\n%s", diff)
	}

	// Cancel while the body of a Get is read.
	put(t, s, "big", string(random(4, 8<<20)))
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	rc, err := s.Get(ctx, "big", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	buf := make([]byte, 1000)
	if _, err := rc.Read(buf); err != nil {
		t.Fatal(err)
	}
	cancel()
	n := 0
	for err == nil {
		var m int
		m, err = rc.Read(buf)
		n += m
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("get canceled while read: %d bytes more, then %v", n, err)
	}
}

func concurrent(t *testing.T, s blob.Store) {
	ctx := t.Context()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 10 {
				key := fmt.Sprintf("w/%d/%d", w, i)
				content := string(random(uint64(w*100+i), 1000*i+w))
				err := s.Put(ctx, key, body(content))
				if err != nil {
					t.Errorf("put %s: %v", key, err)
					continue
				}
				if got, err := get(ctx, s, key, 0, -1); err != nil || got != content {
					t.Errorf("get %s: %d of %d bytes, %v", key, len(got), len(content), err)
				}
				if err := s.Replace(ctx, "w/shared", body(key)); err != nil {
					t.Errorf("replace: %v", err)
				}
				if i%2 == 0 {
					if err := s.Delete(ctx, key); err != nil {
						t.Errorf("delete %s: %v", key, err)
					}
				}
				for _, err := range s.List(ctx, fmt.Sprintf("w/%d", w)) {
					if err != nil {
						t.Errorf("list: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := len(keys(t, s, "w/")); n != 8*5+1 {
		t.Errorf("%d keys at the end, want 41", n)
	}
}

// putAgainstDelete has objects come and go in one folder, so that in places
// with folders the folder comes and goes under the feet of who writes to it.
func putAgainstDelete(t *testing.T, s blob.Store) {
	ctx := t.Context()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				key := fmt.Sprintf("come/and/go/%d", w)
				if err := s.Put(ctx, key, body(key)); err != nil {
					t.Errorf("put %s, time %d: %v", key, i, err)
					return
				}
				if got, err := get(ctx, s, key, 0, -1); err != nil || got != key {
					t.Errorf("get %s, time %d: %q, %v", key, i, got, err)
				}
				if err := s.Delete(ctx, key); err != nil {
					t.Errorf("delete %s, time %d: %v", key, i, err)
				}
			}
		})
	}
	wg.Wait()
	if ks := keys(t, s, ""); ks != nil {
		t.Errorf("left over: %v", ks)
	}
}
