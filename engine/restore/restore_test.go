// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/internal/testpg"
)

func TestRoundTrip(t *testing.T) {
	for _, major := range []int{15, 13, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) { roundTrip(t, major) })
	}
}

func roundTrip(t *testing.T, major int) {
	r := newRig(t, testpg.Start(t, testpg.Options{Major: major}), nil)
	s := r.server
	s.Exec(t, "create table t (id int primary key, at timestamptz)")
	r.startArchiving(t)
	m := r.backup(t, "b1")
	if m.Files < 500 || len(m.BadPages) > 0 {
		t.Errorf("manifest %+v", m)
	}
	moments := make([]time.Time, 5)
	for i := range moments {
		s.Exec(t, fmt.Sprintf("insert into t values (%d, now())", i))
		s.QueryRow(t, "select clock_timestamp()", &moments[i])
		time.Sleep(20 * time.Millisecond)
	}
	end := time.Now()
	r.proven(t, end)

	got := func(s *testpg.Server) (n int) {
		s.QueryRow(t, "select count(*) from t", &n)
		return n
	}
	for i, at := range moments {
		if i%2 == 1 {
			continue
		}
		x := r.restore(t, catalog.Target{Time: at})
		if n := got(x.Server); n != i+1 {
			t.Errorf("restored to after row %d: %d rows", i, n)
		}
		x.Stop(t, testpg.Fast)
	}
	x := r.restore(t, catalog.Target{Latest: true})
	if n := got(x.Server); n != 5 {
		t.Errorf("latest: %d rows", n)
	}
	x = r.restore(t, catalog.Target{Backup: "b1"})
	if n := got(x.Server); n != 0 {
		t.Errorf("backup: %d rows", n)
	}
	x = r.restore(t, catalog.Target{Time: end})
	if n := got(x.Server); n != 5 {
		t.Errorf("idle end: %d rows", n)
	}
	_, err := r.catalog(t).Resolve(t.Context(), catalog.Target{Time: m.StopTime.Add(-time.Second)})
	var outside *catalog.OutsideWindowError
	if !errors.As(err, &outside) || len(outside.Windows) != 1 {
		t.Errorf("before the window: %v", err)
	}
	r.stopArchiving(t)
	if s := r.archiver.Status(); s.LastError != nil {
		t.Errorf("archiver: %v", s.LastError)
	}
}
