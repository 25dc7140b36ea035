// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/internal/testpg"
)

// answering is a door behind which somebody gives one answer.
func answering(t *testing.T, status int, body string) (door string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "door") // a test's own directory may have too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	door = filepath.Join(dir, "s")
	l, err := net.Listen("unix", door)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body)) // who asked sees it
	})}
	go func() { _ = s.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = s.Close(); _ = os.RemoveAll(dir) })
	return door
}

func TestStandbyWAL(t *testing.T) {
	for _, c := range []struct {
		what   string
		status int
		code   int
		says   string
	}{
		{"it is given", http.StatusOK, archive.AwaitFound, ""},
		{"there is none", http.StatusNotFound, archive.AwaitAbsent, ""},
		{"a standby goes on where nobody knows", http.StatusServiceUnavailable, archive.AwaitAbsent, "body"},
		{"a server that becomes the primary does not", http.StatusFailedDependency, archive.AwaitBroken, "body"},
	} {
		path := filepath.Join(t.TempDir(), "RECOVERYXLOG")
		code, err := standbyWAL(t.Context(), answering(t, c.status, "body"), "000000010000000000000001", path)
		if code != c.code || c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %d, %v", c.what, code, err)
		}
		b, err := os.ReadFile(path)
		if found := err == nil; found != (c.code == archive.AwaitFound) || found && string(b) != "body" {
			t.Errorf("%s: the file is %q, %v", c.what, b, err)
		}
	}
	if code, err := standbyWAL(t.Context(), "/nowhere/s", "00000002.history", "/nowhere/f"); code != archive.AwaitAbsent || err == nil {
		t.Errorf("without an agent: %d, %v", code, err)
	}
}

func TestBeforePromotion(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	if err := beforePromotion(t.Context(), answering(t, http.StatusNoContent, ""), mark, time.Second); err != nil {
		t.Error(err)
	}
	if err := beforePromotion(t.Context(), answering(t, http.StatusConflict, "another agent acknowledges them"), mark, time.Second); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("refused: %v", err)
	}
	// without an agent: only where commits do not wait
	if err := beforePromotion(t.Context(), "/nowhere/s", mark, 300*time.Millisecond); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := beforePromotion(t.Context(), "/nowhere/s", mark, 300*time.Millisecond); err == nil {
		t.Error("nobody knows whether it has all acknowledged commits, and it may be the primary")
	}
}

// A standby's own commits wait from the first on when it is promoted, and not when the
// mode has changed meanwhile.
func TestFollowSync(t *testing.T) {
	primary := testpg.Start(t, testpg.Options{})
	standby := testpg.Standby(t, primary)
	c, err := client.Connect(t.Context(), standby.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	is := func(what, want string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // a reload takes its time
			got, err := c.Setting(t.Context(), "synchronous_standby_names")
			if err != nil {
				t.Fatal(err)
			}
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %q, want %q", what, got, want)
			}
		}
	}
	becomes := func(what string, sync bool, want string) {
		t.Helper()
		if err := followSync(t.Context(), c, "kbcli_x", sync); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		is(what, want)
	}
	becomes("sync", true, "kbcli_x")
	becomes("again", true, "kbcli_x")
	becomes("async", false, "")
	for _, sql := range []string{"alter system set synchronous_standby_names = 'another'", "select pg_reload_conf()"} {
		standby.Exec(t, sql)
	}
	is("somebody else's", "another")
	becomes("somebody else's", true, "another")
	becomes("somebody else's", false, "another")
}
