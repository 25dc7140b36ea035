// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/internal/testpg"
)

// A restored server gets the roles and passwords of the new cluster, whatever its source
// called its superuser, and nothing of its source's surroundings.
func TestAdopt(t *testing.T) {
	s := testpg.Start(t, testpg.Options{})
	data := s.DataDir
	s.Exec(t, "create role boss superuser login")
	conn, err := client.Connect(t.Context(), s.ConnString("postgres")+" user=boss")
	if err != nil {
		t.Fatal(err)
	}
	s.Disconnect()
	if _, err := conn.SQL().Exec(t.Context(), "alter role postgres rename to first"); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	s.Stop(t, testpg.Fast)
	uid, gid := testpg.Owner(t)
	at := Places{UID: uid, GID: gid}
	// a quote in a password is no way out of its statement
	pw := Passwords{Superuser: "it's secret", Replication: "'; drop role boss; --"}
	conf, err := os.ReadFile(filepath.Join(data, "postgresql.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := setRoles(t.Context(), s.BinDir, data, at, pw); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	var roles string
	s.QueryRow(t, `select string_agg(rolname || ' ' || rolsuper || ' ' || rolreplication || ' ' || rolcanlogin || ' ' || coalesce(left(rolpassword, 14), ''), ', ' order by rolname)
		from pg_authid where rolname in ('boss', 'postgres', 'standby')`, &roles)
	if want := "boss true false true , postgres true false true SCRAM-SHA-256$, standby false true true SCRAM-SHA-256$"; roles != want {
		t.Errorf("roles are\n%s, want\n%s", roles, want)
	}
	if log := s.Log(); strings.Contains(log, pw.Superuser) {
		t.Error("a password is in the log")
	}
	s.Stop(t, testpg.Fast)
	if err := setRoles(t.Context(), s.BinDir, data, at, Passwords{Superuser: "x"}); err == nil {
		t.Error("a role without a password was made")
	}
	for name, text := range map[string]string{"patroni.dynamic.json": "{}", "postgresql.base.conf": "port = 1\n", "kbcli.conf": "hba_file = '/elsewhere'\n"} {
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(data, "postgresql.auto.conf"), []byte("primary_conninfo = 'host=old'\nwork_mem = '8MB'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := adopt(data); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"patroni.dynamic.json", "postgresql.base.conf", "kbcli.conf"} {
		if _, err := os.Stat(filepath.Join(data, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	auto, err := os.ReadFile(filepath.Join(data, "postgresql.auto.conf"))
	if err != nil || strings.Contains(string(auto), "old") || !strings.Contains(string(auto), "work_mem") {
		t.Errorf("postgresql.auto.conf: %q, %v", auto, err)
	}
	if now, err := os.ReadFile(filepath.Join(data, "postgresql.conf")); err != nil || string(now) == string(conf) {
		t.Errorf("the settings of the source stayed, %v", err)
	}
}

// A standby's slot keeps what the repository does not have, and no more.
func TestFollow(t *testing.T) {
	primary := testpg.Start(t, testpg.Options{Settings: map[string]string{"max_replication_slots": "5"}})
	standby := testpg.Standby(t, primary)
	c, err := client.Connect(t.Context(), standby.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	restart := func() (lsn pg.LSN) {
		t.Helper()
		var text string
		standby.QueryRow(t, "select restart_lsn::text from pg_replication_slots where slot_name = 'kbcli_x'", &text)
		lsn, err := pg.ParseLSN(text)
		if err != nil {
			t.Fatal(err)
		}
		return lsn
	}
	if err := follow(t.Context(), c, "kbcli_x", nil); err != nil {
		t.Fatal(err)
	}
	first := restart()
	primary.Exec(t, "create table t as select generate_series(1, 10000)")
	standby.CatchUp(t, primary)
	var text string
	standby.QueryRow(t, "select pg_last_wal_replay_lsn()::text", &text)
	came, err := pg.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := follow(t.Context(), c, "kbcli_x", &v1alpha1.ArchiveStatus{}); err != nil || restart() != first {
		t.Errorf("without an archive the slot went from %s to %s, %v", first, restart(), err)
	}
	half := first + (came-first)/2
	if err := follow(t.Context(), c, "kbcli_x", &v1alpha1.ArchiveStatus{RepositoryLSN: half.String()}); err != nil || restart() != half {
		t.Errorf("the slot is at %s, the repository at %s, %v", restart(), half, err)
	}
	// an archive that is ahead of this standby, and one that is behind the slot
	if err := follow(t.Context(), c, "kbcli_x", &v1alpha1.ArchiveStatus{RepositoryLSN: (came + 1<<30).String()}); err != nil || restart() > came+1<<20 {
		t.Errorf("the slot is at %s, the standby at %s, %v", restart(), came, err)
	}
	at := restart()
	if err := follow(t.Context(), c, "kbcli_x", &v1alpha1.ArchiveStatus{RepositoryLSN: first.String()}); err != nil || restart() != at {
		t.Errorf("the slot went back to %s, %v", restart(), err)
	}
}

// That the note is refused is an error of the look, which is told once; it is tried again
// until it stands, and then only where it changes.
func TestNoteRecovery(t *testing.T) {
	refused := errors.New("pods is forbidden")
	var wrote []string
	k := &keeper{Options: Options{Clock: func() time.Time { return time.Date(2026, 4, 17, 12, 0, 0, 0, time.UTC) }}}
	k.Note = func(_ context.Context, _, value string) error {
		wrote = append(wrote, value)
		return refused
	}
	for range 2 {
		if err := k.noteRecovery(t.Context(), true); !errors.Is(err, refused) {
			t.Errorf("a note that is refused: %v", err)
		}
	}
	refused = nil
	for _, is := range []bool{true, true, false, false} {
		if err := k.noteRecovery(t.Context(), is); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"2026-04-17T12:00:00Z", "2026-04-17T12:00:00Z", "2026-04-17T12:00:00Z", ""}, wrote); diff != "" {
		t.Errorf("notes (-want +got)\n%s", diff)
	}
}
