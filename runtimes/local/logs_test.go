// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
)

// TestLastKept compares reading backwards with cutting all lines.
func TestLastKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for range 300 {
		var b strings.Builder
		for i := range rand.N(40) {
			fmt.Fprintf(&b, "%d %s", i, strings.Repeat("x", rand.N(1+rand.N(20000))))
			if rand.N(10) > 0 {
				b.WriteString("\n")
			}
		}
		text := b.String()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		keep := func(line []byte) bool { return line[0]%2 == 0 }
		var kept []string
		for line := range strings.Lines(text) {
			if keep([]byte(line)) {
				kept = append(kept, line)
			}
		}
		n := rand.N(len(kept) + 3)
		want := strings.Join(kept[max(0, len(kept)-n):], "")
		if want != "" && !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		l, err := openTail(path, n, keep)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := errors.Join(l.copy(&got, true), l.file.Close()); err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Fatalf("the last %d of %d lines are %d bytes, want %d", n, len(kept), got.Len(), len(want))
		}
	}
}

type heard struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.Write(b)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.String()
}

func TestFollowLog(t *testing.T) {
	r, err := Open(t.Context(), Options{StateDir: t.TempDir(), Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := &v1alpha1.Cluster{}
	c.Namespace, c.Name = "default", "a"
	dir := r.cluster("default", "a")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "server.log")
	put := func(text string, flag int) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	put("one\ntwo\nthree\n", 0)
	ctx, cancel := context.WithCancel(t.Context())
	var got heard
	done := make(chan error)
	go func() { done <- r.Logs(ctx, c, runtimes.LogOptions{Tail: 2, Follow: true}, &got) }()
	until := func(want string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); got.String() != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("heard %q, want %q", got.String(), want)
			}
		}
	}
	until("two\nthree\n")
	put("fo", os.O_APPEND)
	put("ur\n", os.O_APPEND)
	until("two\nthree\nfour\n")
	// cut as logrotate's copytruncate does
	put("five\n", os.O_TRUNC)
	until("two\nthree\nfour\nfive\n")
	// and renamed away
	put("half", os.O_APPEND)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	put("six\n", 0)
	until("two\nthree\nfour\nfive\nhalf\nsix\n")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}

	agent := `{"msg":"a","cluster":"default/a"}
{"msg":"b default/a"}
{"msg":"c","cluster":"default/ab"}
not an object default/a
{"msg":"d","cluster":"default/a"}
`
	if err := os.WriteFile(r.layout.log(), []byte(agent), 0o600); err != nil {
		t.Fatal(err)
	}
	for tail, want := range map[int]string{-1: "ad", 0: "", 1: "d", 2: "ad", 9: "ad"} {
		var b bytes.Buffer
		if err := r.Logs(t.Context(), c, runtimes.LogOptions{Agent: true, Tail: tail}, &b); err != nil {
			t.Fatal(err)
		}
		msgs := ""
		for line := range strings.Lines(b.String()) {
			msgs += line[8:9]
		}
		if msgs != want {
			t.Errorf("the last %d are %q", tail, b.String())
		}
	}

	if path, err := logOfProcess(os.Getpid(), "me"); err == nil {
		t.Logf("this test's own log is %s", path)
	} else if e := (*runtimes.LogElsewhereError)(nil); !errors.As(err, &e) || e.Whose != "me" {
		t.Error(err)
	}
}
