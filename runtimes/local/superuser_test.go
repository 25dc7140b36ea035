// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/internal/testpg"
)

func TestRoleWord(t *testing.T) {
	for _, c := range []struct {
		name  string
		major int
		want  string
	}{
		{"postgres", 15, "postgres"},
		{"all", 15, `"all"`},
		{"Boss Man", 15, `"Boss Man"`},
		{`a"b`, 15, `"a""b"`},
		{"+group", 15, `"+group"`},
		{"/a.b", 15, `"/a.b"`},
		{"/a.b", 16, `"/^/a\.b$"`},
	} {
		if got := roleWord(c.name, c.major); got != c.want {
			t.Errorf("%s on %d: %s, not %s", c.name, c.major, got, c.want)
		}
	}
}

// TestOddSuperuser lets superusers in whose names mean something in pg_hba.conf,
// pg_ident.conf or a connection string, and nobody else.
func TestOddSuperuser(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) { oddSuperuser(t, major) })
	}
}

func oddSuperuser(t *testing.T, major int) {
	dir, err := os.MkdirTemp("/tmp", "kbl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	acc, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		install: install{major, testpg.Binaries(t, major).BinDir}, account: acc,
		dir: filepath.Join(dir, "c"), data: filepath.Join(dir, "c", "data"), socket: filepath.Join(dir, "c", "s"), superuser: "postgres",
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := acc.dir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.initdb(t.Context(), port, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	connect := func(user string) (*pgx.Conn, error) {
		return pgx.Connect(t.Context(), conninfo(s.socket, int32(port), user, "postgres"))
	}
	c, err := connect("postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for _, name := range []string{"Boss Man", `a"b`, `o'brien`, `back\slash\`, "+postgres", "@file", "#none", "all", "replication", "samerole,", "/post.*", `"`, "élan"} {
		if _, err := c.Exec(t.Context(), "create role "+pgx.Identifier{name}.Sanitize()+" superuser login"); err != nil {
			t.Fatal(err)
		}
		s.superuser = name
		if err := s.configure(s.data, port, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := readSuperuser(s.data); err != nil || got != name {
			t.Errorf("%s is read as %q, %v", name, got, err)
		}
		if _, err := c.Exec(t.Context(), "select pg_reload_conf()"); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			x, err := connect(name)
			if err == nil {
				var who string
				err = x.QueryRow(t.Context(), "select current_user").Scan(&who)
				if x.Close(t.Context()); err != nil || who != name {
					t.Errorf("%s is %q, %v", name, who, err)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s: %v", name, err)
				break
			}
		}
		// the one that was let in before has to give its password now
		if x, err := connect("postgres"); err == nil {
			x.Close(t.Context())
			t.Errorf("beside %s, postgres is let in too", name)
		}
	}
	s.superuser = "two\nlines"
	if err := s.configure(s.data, port, nil); err == nil || !strings.Contains(err.Error(), "line break") {
		t.Errorf("a name of two lines: %v", err)
	}
}
