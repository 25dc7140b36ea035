// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// TestSuperuserRenamed restores moments before and after the superuser that the backup
// names was renamed, was kept from logging in, and was dropped.
func TestSuperuserRenamed(t *testing.T) {
	for _, major := range []int{13, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) { superuserRenamed(t, major) })
	}
}

func superuserRenamed(t *testing.T, major int) {
	r := newRig(t, testpg.Start(t, testpg.Options{Major: major}), nil)
	s := r.server
	s.Exec(t, `create role second superuser login; create role reader login; create table t (i int)`)
	r.startArchiving(t)
	if m := r.backup(t, "b1"); m.Superuser != "postgres" {
		t.Errorf("the manifest names %q", m.Superuser)
	}
	// the archiver has its connection by now; this one outlives the name
	c, err := pgx.Connect(t.Context(), s.ConnString("postgres")+" user=second")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var at []time.Time
	for _, sql := range []string{
		"select",
		`alter role postgres rename to "Boss Man's \ role"`,
		`alter role "Boss Man's \ role" nologin`,
		`alter role second nosuperuser`,
	} {
		if _, err := c.Exec(t.Context(), "insert into t values (1); "+sql); err != nil {
			t.Fatal(err)
		}
		var now time.Time
		if err := c.QueryRow(t.Context(), "select clock_timestamp()").Scan(&now); err != nil {
			t.Fatal(err)
		}
		at = append(at, now)
		time.Sleep(20 * time.Millisecond)
	}
	r.proven(t, at[3])
	for i, want := range []string{"postgres", `Boss Man's \ role`, "second", ""} {
		p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Time: at[i]})
		if err != nil {
			t.Fatal(err)
		}
		into, recovery := r.place(t)
		if err := p.Fetch(t.Context(), into); err != nil {
			t.Fatal(err)
		}
		reached, err := p.Recover(t.Context(), recovery)
		var none *restore.NoSuperuserError
		switch {
		case want == "" && !errors.As(err, &none):
			t.Errorf("moment %d: %v", i, err)
		case want != "" && (err != nil || reached.Superuser != want):
			t.Errorf("moment %d: %+v, %v, not %q", i, reached, err, want)
		}
	}
}
