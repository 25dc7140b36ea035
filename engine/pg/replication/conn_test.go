// SPDX-License-Identifier: Apache-2.0

package replication_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/pg/replication"
)

func TestConnectKeepsSecrets(t *testing.T) {
	for _, info := range []string{
		"host=/nowhere user=u password=hunter2",
		"postgres://u:hunter2@127.0.0.1:1/db",
		"postgres://u:hunter2@127.0.0.1:port/db",
		"host=127.0.0.1 password='hunter2",
	} {
		_, err := replication.Connect(t.Context(), info)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", info, err)
		}
		t.Log(err)
	}
}

func TestConnect(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		// glibc looks for a locale by its directory: C under another name is
		// one that a client cannot know to be English.
		locales := t.TempDir()
		if err := os.Symlink("/usr/lib/locale/C.utf8", filepath.Join(locales, "xx_XX.utf8")); err != nil {
			t.Fatal(err)
		}
		for dir := locales; dir != os.TempDir(); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("LOCPATH", locales)
		s := newServer(t, major, "lc_messages=xx_XX.utf8")
		s.sql(t, "create role watcher login replication; create role nobody login")
		for user, want := range map[string]string{"postgres": "C", "watcher": "xx_XX.utf8"} {
			c, err := replication.Connect(t.Context(), fmt.Sprintf("host=%s user=%s replication=database", s.sock, user))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Show(t.Context(), "lc_messages"); got != want || err != nil {
				t.Errorf("%s: messages are in %q, %v, want %q", user, got, err, want)
			}
			if _, err := c.Show(t.Context(), "no_such_thing"); err == nil {
				t.Error("no_such_thing has a value")
			}
			if _, err := c.Show(t.Context(), "port; DROP_REPLICATION_SLOT x"); err == nil {
				t.Error("a command was taken for a name")
			}
			if err := c.CreateSlot(t.Context(), `x" LOGICAL`, true, false); err == nil {
				t.Error("a command was taken for a slot")
			}
			c.Close()
			c.Close()
			if _, err := c.IdentifySystem(t.Context()); err == nil {
				t.Error("a closed connection takes commands")
			}
		}
		if _, err := replication.Connect(t.Context(), fmt.Sprintf("host=%s user=nobody", s.sock)); err == nil {
			t.Error("a role without REPLICATION may stream")
		}
	})
}

// target_session_attrs works although a walsender runs no SQL.
func TestTargetSession(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		p := newServer(t, major, "hot_standby=on")
		s := p.standby(t)
		for attrs, want := range map[string]*server{"any": s, "primary": p, "read-write": p, "standby": s, "read-only": s, "prefer-standby": s} {
			info := fmt.Sprintf("host=%s,%s user=postgres target_session_attrs=%s", s.sock, p.sock, attrs)
			if attrs == "standby" || attrs == "read-only" {
				info = fmt.Sprintf("host=%s,%s user=postgres target_session_attrs=%s", p.sock, s.sock, attrs)
			}
			c, err := replication.Connect(t.Context(), info)
			if err != nil {
				t.Errorf("%s: %v", attrs, err)
				continue
			}
			if dir, err := c.Show(t.Context(), "unix_socket_directories"); dir != want.sock || err != nil {
				t.Errorf("%s: connected to %s, %v; want %s", attrs, dir, err, want.sock)
			}
			c.Close()
		}
	})
}

func TestConnectObeysContext(t *testing.T) {
	s := newServer(t, 15)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := replication.Connect(ctx, s.info()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	c := s.connect(t)
	if _, err := c.IdentifySystem(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	start := time.Now()
	if _, err := c.IdentifySystem(t.Context()); err == nil {
		t.Error("a connection with an answer under way takes commands")
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("it took %s to say so", d)
	}
}
