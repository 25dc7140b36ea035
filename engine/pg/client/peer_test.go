// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/pg/replication"
	"github.com/kbcli/kbcli/internal/testpg"
)

// A server that lets in nobody but its owner, by peer, lets root in; and no thread of
// the process is anybody but root afterwards.
func TestPeer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: the owner of the server runs this and is let in as himself")
	}
	s := testpg.Start(t, testpg.Options{})
	hba := "local all postgres peer\nlocal replication postgres peer\n"
	if err := os.WriteFile(filepath.Join(s.DataDir, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Reload(t)

	ctx := t.Context()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := client.Connect(ctx, s.ConnString("postgres"))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, err := c.Identify(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r, err := replication.Connect(ctx, s.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.IdentifySystem(ctx); err != nil {
		t.Fatal(err)
	}

	config, err := client.Config(s.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	// a cancel request dials once more
	if err := plain.PgConn().CancelRequest(ctx); err != nil {
		t.Error(err)
	}
	plain.Close(context.Background())
	if os.Geteuid() != 0 {
		return
	}
	// another role is asked for as root, whom the server does not let in
	if c, err := client.Connect(ctx, s.ConnString("postgres")+" user=nobody"); err == nil {
		c.Close()
		t.Error("root was let in as somebody who is not the owner")
	}
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, path := range threads {
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) || strings.Contains(string(b), "(zombie)") {
			continue
		}
		if err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "Uid:") && strings.Join(strings.Fields(line), " ") != "Uid: 0 0 0 0" {
				t.Errorf("%s: %s", path, line)
			}
		}
	}
}

// The directories above the socket are closed to the owner.
func TestPeerBehindClosedDirectories(t *testing.T) {
	s := testpg.Start(t, testpg.Options{})
	hba := "local all postgres peer\n"
	if err := os.WriteFile(filepath.Join(s.DataDir, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Reload(t)
	if os.Geteuid() == 0 {
		if err := os.Chown(s.SocketDir, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(s.SocketDir, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(s.SocketDir, 0o755)
	}
	c, err := client.Connect(t.Context(), s.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
