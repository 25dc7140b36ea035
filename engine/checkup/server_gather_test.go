// SPDX-License-Identifier: Apache-2.0

package checkup_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/internal/testpg"
)

// levels are the checks that do not pass.
func levels(t *testing.T, s *testpg.Server, user string) map[string]checkup.Level {
	t.Helper()
	f, err := checkup.GatherServer(t.Context(), checkup.ServerTarget{
		Conninfo: s.ConnString("postgres") + " user=" + user, DataDirectory: s.DataDir, Slot: "kbcli_x",
	})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]checkup.Level{}
	for _, n := range checkup.CheckServer(f) {
		if n.Level != checkup.Pass {
			out[n.Check] = n.Level
			t.Logf("%s: %s\n%s", n.Check, n.Evidence, n.Next)
		}
	}
	return out
}

// Servers of the oldest, the usual and the newest release: one that is fine, one that
// lacks much, and a role that may do little, until it is given what the checks say.
func TestGatherServer(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			s := testpg.Start(t, testpg.Options{Major: major, Fsync: true, Settings: map[string]string{"max_slot_wal_keep_size": "16MB"}})
			s.Exec(t, "create role keeper login")
			if diff := cmp.Diff(map[string]checkup.Level{}, levels(t, s, "postgres"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("a good server: -want +got\n%s", diff)
			}

			want := map[string]checkup.Level{"replication-role": checkup.Fail, "replication-connection": checkup.Fail}
			if diff := cmp.Diff(want, levels(t, s, "keeper")); diff != "" {
				t.Errorf("a role that may nothing: -want +got\n%s", diff)
			}
			f, err := checkup.GatherServer(t.Context(), checkup.ServerTarget{Conninfo: s.ConnString("postgres") + " user=keeper", DataDirectory: s.DataDir})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range checkup.CheckServer(f) {
				if n.Check == "replication-role" {
					s.Exec(t, n.Next)
				}
			}
			if diff := cmp.Diff(map[string]checkup.Level{}, levels(t, s, "keeper"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("after the grants: -want +got\n%s", diff)
			}

			standby := testpg.Standby(t, s)
			if diff := cmp.Diff(map[string]checkup.Level{}, levels(t, standby, "keeper"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("a standby: -want +got\n%s", diff)
			}

			hba := filepath.Join(s.DataDir, "pg_hba.conf")
			if err := os.WriteFile(hba, []byte("local all all trust\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.Set(t, map[string]string{"wal_level": "minimal", "max_wal_senders": "0", "max_replication_slots": "1", "fsync": "off"})
			standby.Stop(t, testpg.Immediate)
			// the server may not have noticed yet that the standby is gone
			s.Exec(t, "do $$ begin while exists (select from pg_replication_slots where active) loop perform pg_sleep(0.05); end loop; end $$")
			s.Exec(t, "select pg_drop_replication_slot(slot_name) from pg_replication_slots")
			s.Restart(t)
			want = map[string]checkup.Level{
				"wal-level": checkup.Fail, "wal-senders": checkup.Fail, "replication-connection": checkup.Fail, "fsync": checkup.Warn,
			}
			if diff := cmp.Diff(want, levels(t, s, "postgres")); diff != "" {
				t.Errorf("a server that lacks much: -want +got\n%s", diff)
			}
		})
	}
}

func TestGatherAnotherDirectory(t *testing.T) {
	a, b := testpg.Start(t, testpg.Options{}), testpg.Start(t, testpg.Options{})
	f, err := checkup.GatherServer(t.Context(), checkup.ServerTarget{Conninfo: a.ConnString("postgres"), DataDirectory: b.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range checkup.CheckServer(f) {
		if n.Check == "data-directory" && n.Level == checkup.Fail && strings.Contains(n.Evidence, "another cluster") {
			return
		}
	}
	t.Error("the data directory of another cluster passes")
}
