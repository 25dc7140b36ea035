// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/bounds"
)

const childEnv = "KBCLI_TEST_CHILD"

// child is work that a process of its own does, so that it can be killed, and its memory
// be seen.
type child struct {
	Repo, Lineage, Identity string
	Backup                  string // its name
	Conninfo                string // of the server to back up; empty: restore
	Into                    restore.Into
	Memory                  int64
	AsOwner                 bool // Into's owner restores, and not who runs the test
}

// childSays is what it says in the end.
type childSays struct {
	Began, Peak int64 // resident bytes, at the start and at most
	Delta       restore.Delta
	Least       int64 // of a *bounds.MemoryError
	Err         string
}

// run does the work in this process.
func (c child) run() (says childSays) {
	ctx := context.Background()
	says.Began = resident("VmHWM:")
	err := c.work(ctx, &says)
	says.Peak = resident("VmHWM:")
	var small *bounds.MemoryError
	if errors.As(err, &small) {
		says.Least = small.Least
	}
	if err != nil {
		says.Err = err.Error()
	}
	return says
}

func (c child) work(ctx context.Context, says *childSays) error {
	store, err := fs.Open(c.Repo)
	if err != nil {
		return err
	}
	repo, err := repository.Open(ctx, store, repository.Options{Clock: time.Now, Identities: c.Identity})
	if err != nil {
		return err
	}
	l, err := repo.Lineage(ctx, c.Lineage)
	if err != nil {
		return err
	}
	held, release := bounds.Bounds{Memory: c.Memory}.Hold()
	defer release()
	if c.Conninfo != "" {
		_, err := basebackup.Take(ctx, basebackup.Config{
			Lineage: l, Conninfo: c.Conninfo, Name: c.Backup, Manual: true, Fast: true, Workers: 4, Bounds: held,
			WaitWAL: func(ctx context.Context, tli pg.TimelineID, lsn pg.LSN) error {
				for l.Covers(ctx, tli, lsn-1, lsn) != nil {
					time.Sleep(50 * time.Millisecond)
				}
				return nil
			},
			Clock: time.Now, Log: slog.New(slog.DiscardHandler),
		})
		return err
	}
	cat, err := catalog.Load(ctx, l)
	if err != nil {
		return err
	}
	p, err := restore.MakePlan(ctx, cat, catalog.Target{Backup: c.Backup})
	if err != nil {
		return err
	}
	c.Into.Bounds = held
	c.Into.Jobs = 4
	if c.AsOwner && c.Into.UID > 0 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(c.Into.GID), syscall.Setuid(c.Into.UID)); err != nil {
			return err
		}
		c.Into.UID, c.Into.GID = -1, -1
	}
	if err := p.Fetch(ctx, c.Into); err != nil {
		return err
	}
	if c.Into.Delta != nil {
		says.Delta = *c.Into.Delta
	}
	return nil
}

// resident reads one of the lines about memory in /proc/self/status, in bytes.
func resident(name string) int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			if err != nil {
				panic(err)
			}
			return n << 10
		}
	}
	panic("no " + name)
}

// childMain is what TestMain does in the child.
func childMain(text string) {
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("begins")
	if err := json.NewEncoder(os.Stdout).Encode(c.run()); err != nil {
		os.Exit(1)
	}
}

// start starts the child; the answer comes on the channel, which is closed without one if
// it was killed.
func (c child) start(t *testing.T) (*os.Process, <-chan childSays) {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	if line, err := in.ReadString('\n'); line != "begins\n" {
		t.Fatalf("the child says %q: %v", line, err)
	}
	answer := make(chan childSays, 1)
	go func() {
		defer close(answer)
		var says childSays
		err := json.NewDecoder(in).Decode(&says)
		if cmd.Wait() == nil && err == nil {
			answer <- says
		}
	}()
	return cmd.Process, answer
}

func (c child) do(t *testing.T) childSays {
	t.Helper()
	_, answer := c.start(t)
	says, ok := <-answer
	if !ok {
		t.Fatal("the child ended without an answer")
	}
	return says
}
