// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
)

func TestCreateTwice(t *testing.T) {
	id, a := somebody(t)
	_, b := somebody(t)
	for _, test := range []struct {
		name          string
		first, second []string
		want          string
	}{
		{"plain", nil, nil, ""},
		{"sealed to the same", []string{a, b}, []string{b, a}, ""},
		{"sealed, none given", []string{a}, nil, ""},
		{"another", []string{a}, []string{b}, "other recipients"},
		{"one more", []string{a}, []string{a, b}, "other recipients"},
		{"plain, some given", nil, []string{a}, "other recipients"},
		{"not a recipient", nil, []string{"me"}, `recipient "me"`},
		{"two in one", nil, []string{a + "\n" + b}, "not one age public key"},
		{"a comment", nil, []string{"# " + a}, "recipient"},
		{"blank", nil, []string{""}, "recipient"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := mem.New(nil)
			first := create(t, s, Options{Recipients: test.first, Identities: id})
			second, err := Create(t.Context(), s, Options{Recipients: test.second, Clock: testClock})
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
				return
			}
			if err != nil || second.ID() != first.ID() || second.Sealed() != first.Sealed() || len(first.ID()) != 16 || !first.Readable() || second.Readable() == first.Sealed() {
				t.Errorf("got %+v, %v", second, err)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	s := mem.New(nil)
	if _, err := Open(t.Context(), s, Options{Clock: testClock}); !errors.Is(err, ErrNoRepository) {
		t.Errorf("nothing there: %v", err)
	}
	// no answer is not absence
	f := fault.New(s, 1, fault.Rule{Action: fault.Fail(nil)})
	if _, err := Open(t.Context(), f, Options{Clock: testClock}); errors.Is(err, ErrNoRepository) || !errors.Is(err, blob.ErrUnreachable) {
		t.Errorf("unreachable: %v", err)
	}
	r := create(t, s, Options{})
	if r.Store() != s {
		t.Error("it lies somewhere else")
	}
	secret := "AGE-SECRET-KEY-1ALMOST"
	if _, err := Open(t.Context(), s, Options{Clock: testClock, Identities: secret}); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a bad identity: %v", err)
	}
	for doc, want := range map[string]string{`{"format":2}`: "newer kbcli", `{`: "damaged", `{"format":1,"recipients":["x"]}`: "damaged"} {
		if err := r.replace(t.Context(), KindRepository, "repository", []byte(doc)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), s, Options{Clock: testClock}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

// A create whose answer was lost is found again.
func TestCreateOverFaults(t *testing.T) {
	s := fault.New(mem.New(nil), 1, fault.Rule{Verb: blob.VerbPut, Nth: 1, Action: fault.FailAfter(nil)})
	if _, err := Create(t.Context(), s, Options{Clock: testClock}); !errors.Is(err, blob.ErrUnreachable) {
		t.Fatal(err)
	}
	create(t, s, Options{})
}

func TestSealed(t *testing.T) {
	id, to := somebody(t)
	stranger, _ := somebody(t)
	s := mem.New(nil)
	r := create(t, s, Options{Recipients: []string{to}}) // knows recipients alone
	_, objects := fill(t, r)
	for _, test := range []struct {
		name, identities string
		reads            bool
	}{{"recipients alone", "", false}, {"another's identity", stranger, false}, {"its identity", id, true}, {"among others", stranger + "\n# mine\n" + id, true}} {
		r, err := Open(t.Context(), s, Options{Identities: test.identities, Clock: testClock})
		if err != nil || !r.Sealed() || r.Readable() != (test.identities != "") {
			t.Fatalf("%s: %v", test.name, err)
		}
		for _, ob := range objects {
			_, err := ob.read(t.Context(), r)
			switch {
			case test.reads || !ob.kind.sealed():
				if err != nil {
					t.Errorf("%s cannot read %s: %v", test.name, ob.key, err)
				}
			case !errors.Is(err, ErrSealed):
				t.Errorf("%s reads %s: %v", test.name, ob.key, err)
			}
		}
	}
	// what is written again by who cannot read it is known where it has a content hash
	l, err := r.Lineages(t.Context())
	if err != nil || len(l) != 1 {
		t.Fatal(err)
	}
	putSegment(t, l[0], wholeSegment, quiet(9))
	if err := putTail(l[0], tailSegment, 0, 100, quiet(8)); err != nil {
		t.Error(err)
	}
	var conflict *ConflictError
	if err := putTail(l[0], tailSegment, 0, 100, quiet(7)); !errors.As(err, &conflict) {
		t.Error(err)
	}
	if err := l[0].PutIndex(t.Context(), wholeSegment, []byte("again")); err != nil {
		t.Error(err)
	}
	if _, err := l[0].PutPack(t.Context(), PackRef{"b1", 1}, packed([]byte("x"))); !errors.As(err, &conflict) {
		t.Error(err)
	}
	// nothing that was sealed stands there in the open
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if b := raw(t, s, info.Key); strings.Contains(string(b), "second") || strings.Contains(string(b), "what it says") {
			t.Errorf("%s can be read by anybody", info.Key)
		}
	}
}

func TestLineages(t *testing.T) {
	s := mem.New(nil)
	now := testTime
	r, err := Create(t.Context(), s, Options{Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range 5 {
		now = testTime.Add(time.Duration(-i) * time.Hour)
		l, err := r.CreateLineage(t.Context(), LineageInfo{Cluster: fmt.Sprint("c", i), SystemID: testSystem, Major: 13 + i, SegmentSize: testSegment})
		if err != nil {
			t.Fatal(err)
		}
		if o, err := r.Lineage(t.Context(), l.Info().ID); err != nil || o.Info() != l.Info() || o.Repository() != r {
			t.Errorf("opened again: %v", err)
		}
		ids = append(ids, l.Info().ID)
		putSegment(t, l, wholeSegment, quiet(1))
	}
	slices.Reverse(ids)
	list := func() (got []string, err error) {
		ls, err := r.Lineages(t.Context())
		for _, l := range ls {
			got = append(got, l.Info().ID)
		}
		return got, err
	}
	if got, err := list(); err != nil || !slices.Equal(got, ids) {
		t.Errorf("got %v, %v, want %v", got, err, ids)
	}
	key := lineageKey(ids[2])
	replace(t, s, key, []byte("x"))
	got, err := list()
	wantDamage(t, "a description", key, err)
	if !slices.Equal(got, slices.Delete(slices.Clone(ids), 2, 3)) {
		t.Errorf("beside a damaged one: %v", got)
	}
	r.store = fault.New(s, 1, fault.Rule{Verb: blob.VerbGet, Key: ids[4], Action: fault.Fail(nil)})
	if got, err := list(); !errors.Is(err, blob.ErrUnreachable) || got != nil {
		t.Errorf("one unreachable: %v, %v", got, err)
	}
	r.store = s

	for _, id := range []string{"", "nobody", "a/b", "..", ids[0] + "/x", "ä"} {
		if _, err := r.Lineage(t.Context(), id); err == nil || id == "nobody" && !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, info := range []LineageInfo{{Cluster: "c", SegmentSize: 3 << 20}, {Cluster: "c"}, {Cluster: "a/b", SegmentSize: testSegment}, {Cluster: "..", SegmentSize: 0}, {Cluster: "a b", SegmentSize: testSegment}} {
		if _, err := r.CreateLineage(t.Context(), info); err == nil {
			t.Errorf("%+v was created", info)
		}
	}
	// of two with one name each is itself
	if a, b := newLineage(t, r), newLineage(t, r); a.Info().ID == b.Info().ID {
		t.Error("one lineage twice")
	}
}

func TestDestroy(t *testing.T) {
	s := mem.New(nil)
	r := create(t, s, Options{})
	l, _ := fill(t, r)
	other, _ := fill(t, r)
	for n := 1; ; n++ {
		// interrupted anywhere, it is no lineage any more and can be gone on with
		r.store = fault.New(s, 1, fault.Rule{Verb: blob.VerbDelete, Nth: n, Action: fault.Fail(nil)})
		err := l.Destroy(t.Context())
		r.store = s
		if err == nil {
			break
		}
		if ls, lerr := r.Lineages(t.Context()); lerr != nil || n > 1 && len(ls) != 1 {
			t.Fatalf("after %d: %v", n, lerr)
		}
	}
	for info := range s.List(t.Context(), "") {
		if strings.Contains(info.Key, l.Info().ID) {
			t.Errorf("%s is left", info.Key)
		}
	}
	if _, err := other.Manifest(t.Context(), "b1"); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	l, _ := plainLineage(t)
	if err := l.Check(testSystem, 15, testSegment); err != nil {
		t.Error(err)
	}
	for _, err := range []error{l.Check(testSystem+1, 15, testSegment), l.Check(testSystem, 16, testSegment), l.Check(testSystem, 15, pg.DefaultSegmentSize)} {
		var mismatch *MismatchError
		if !errors.As(err, &mismatch) || mismatch.Have == mismatch.Got || !strings.Contains(err.Error(), mismatch.Field) {
			t.Error(err)
		}
	}
}

func TestGapsAndBeat(t *testing.T) {
	l, s := plainLineage(t)
	ctx := t.Context()
	if b, err := l.Beat(ctx); err != nil || b != (Beat{}) {
		t.Errorf("no beat: %+v, %v", b, err)
	}
	gaps := []Gap{
		{Timeline: 1, From: 0x100, ToTimeline: 1, To: 0x200, Reason: "a", Detected: testTime},
		{Timeline: 1, From: 0x3_0000_0000, ToTimeline: 2, To: 0x4_0000_0000, Reason: "b", Detected: testTime},
		{Timeline: 2, From: 0x1, ToTimeline: 2, To: 0x2, Reason: "c", Detected: testTime},
	}
	for _, i := range []int{2, 0, 1} {
		if err := l.PutGap(ctx, gaps[i]); err != nil {
			t.Fatal(err)
		}
	}
	again := gaps[0]
	again.Reason, again.Detected = "another", testTime.Add(1)
	if err := l.PutGap(ctx, again); err != nil {
		t.Error(err)
	}
	if got, err := l.Gaps(ctx); err != nil || !slices.Equal(got, gaps) {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := l.repo.replace(ctx, KindGap, l.gapKey(gaps[0]), []byte(`{"timeline":1,"from":"0/100","to":"0/300"}`)); err != nil {
		t.Fatal(err)
	}
	_, err := l.Gaps(ctx)
	wantDamage(t, "another gap", l.gapKey(gaps[0]), err)
	for i := range 3 {
		want := Beat{Timeline: 1, LSN: pg.LSN(i), Time: testTime.Add(time.Duration(i))}
		if err := l.PutBeat(ctx, want); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Beat(ctx); err != nil || got != want {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	replace(t, s, l.key("beat"), nil)
	_, err = l.Beat(ctx)
	wantDamage(t, "an empty beat", l.key("beat"), err)
}
