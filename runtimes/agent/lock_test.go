// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/repository"
)

// The test binary is also an agent that takes the lock of a lineage and is killed.
const holdEnv = "KBCLI_TEST_HOLD" // state directory, repository, lineage

func TestMain(m *testing.M) {
	if what := os.Getenv(holdEnv); what != "" {
		if err := holdForEver(strings.Split(what, ":")); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func holdForEver(what []string) error {
	lockLife = quick
	p, l, err := protectorOf(context.Background(), what[0], what[1], what[2])
	if err != nil {
		return err
	}
	if err := p.hold(context.Background(), l); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// protectorOf is a Protector of a state directory, and a lineage as it sees it.
func protectorOf(ctx context.Context, state, place, lineage string) (*Protector, *repository.Lineage, error) {
	id, err := Identify(state)
	if err != nil {
		return nil, nil, err
	}
	at, err := fs.Create(place)
	if err != nil {
		return nil, nil, err
	}
	repo, err := repository.Open(ctx, at, repository.Options{Clock: time.Now})
	if err != nil {
		return nil, nil, err
	}
	l, err := repo.Lineage(ctx, lineage)
	p := New(Config{Cluster: "c", Clock: time.Now, Log: slog.New(slog.DiscardHandler), Identity: id})
	return p, l, err
}

const quick = 3 * time.Second

// quickLocks lets locks run out quickly.
func quickLocks(t *testing.T) {
	was := lockLife
	lockLife = quick
	t.Cleanup(func() { lockLife = was })
}

// newPlace is a repository in a directory with one lineage.
func newPlace(t *testing.T) (place, lineage string) {
	t.Helper()
	place = t.TempDir()
	at, err := fs.Create(place)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Create(t.Context(), at, repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.CreateLineage(t.Context(), repository.LineageInfo{Namespace: "default", Cluster: "c", SystemID: 1, Major: 15, SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return place, l.Info().ID
}

// untilHeld asks for the lock until it is answered with something else than a refusal.
func untilHeld(t *testing.T, p *Protector, l *repository.Lineage) time.Duration {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := p.hold(t.Context(), l)
		if err == nil {
			return time.Since(began)
		}
		var locked *repository.LockedError
		if !errors.As(err, &locked) {
			t.Fatal(err)
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("still %v", err)
		}
	}
}

// TestTwoAgents: a copy of a state directory comes up beside the first. It is refused
// while the first lives, and the first goes on; when the first has ended it takes over.
func TestTwoAgents(t *testing.T) {
	quickLocks(t)
	place, lineage := newPlace(t)
	state, twin := t.TempDir(), t.TempDir()
	a, al, err := protectorOf(t.Context(), state, place, lineage)
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.ReadFile(state + "/installation")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(twin+"/installation", name, 0o644); err != nil {
		t.Fatal(err)
	}
	b, bl, err := protectorOf(t.Context(), twin, place, lineage)
	if err != nil {
		t.Fatal(err)
	}
	// in one process they would be taken for one: another boot is another machine
	b.cfg.Identity.life.boot = "0f0f0f0f"
	untilHeld(t, a, al)
	var locked *repository.LockedError
	for end := time.Now().Add(3 * lockLife); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := b.hold(t.Context(), bl); !errors.As(err, &locked) || !strings.Contains(err.Error(), state) {
			t.Fatalf("the second agent: %v", err)
		}
		if err := a.hold(t.Context(), al); err != nil {
			t.Fatalf("the first agent: %v", err)
		}
	}
	a.abandon()
	untilHeld(t, b, bl)
	if err := a.hold(t.Context(), al); !errors.As(err, &locked) {
		t.Errorf("the first agent: %v", err)
	}
	a.abandon()
	b.abandon()
}

// TestLockIsLost: what runs under a lock that is taken over ends, and says why.
func TestLockIsLost(t *testing.T) {
	quickLocks(t)
	place, lineage := newPlace(t)
	a, l, err := protectorOf(t.Context(), t.TempDir(), place, lineage)
	if err != nil {
		t.Fatal(err)
	}
	untilHeld(t, a, l)
	work, cancel := a.while(t.Context())
	defer cancel()
	// it slept for a while, and somebody saw that
	thief, err := l.Repository().LockFrom(t.Context(), "agent-"+lineage, "a thief", lockLife, 0, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-work.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("what runs under the lock goes on")
	}
	if err := context.Cause(work); !errors.Is(err, repository.ErrLockLost) || !strings.Contains(err.Error(), "a thief") {
		t.Errorf("it ended with %v", err)
	}
	if err := a.hold(t.Context(), l); !errors.Is(err, repository.ErrLockLost) {
		t.Errorf("hold: %v", err)
	}
	var locked *repository.LockedError
	if err := a.hold(t.Context(), l); !errors.As(err, &locked) {
		t.Errorf("hold: %v", err)
	}
	if err := thief.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	untilHeld(t, a, l)
	a.abandon()
}

// TestMovedRepository: the lock that went along with a moved repository is one's own.
func TestMovedRepository(t *testing.T) {
	place, lineage := newPlace(t)
	p, l, err := protectorOf(t.Context(), t.TempDir(), place, lineage)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.hold(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	moved := place + ".moved"
	if err := os.Rename(place, moved); err != nil {
		t.Fatal(err)
	}
	at, err := fs.Open(moved)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), at, repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if l, err = repo.Lineage(t.Context(), lineage); err != nil {
		t.Fatal(err)
	}
	if err := p.hold(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	// and while it is held nobody in this process takes it again
	var locked *repository.LockedError
	if _, err := Lock(t.Context(), l, p.cfg.Identity); !errors.As(err, &locked) {
		t.Errorf("twice: %v", err)
	}
	p.abandon()
}

// TestKilledAgent: an agent that was killed is followed at once by the next of its state
// directory, and after a while by that of another.
func TestKilledAgent(t *testing.T) {
	quickLocks(t)
	place, lineage := newPlace(t)
	state := t.TempDir()
	for _, next := range []string{state, t.TempDir()} {
		p, l, err := protectorOf(t.Context(), next, place, lineage)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), holdEnv+"="+strings.Join([]string{state, place, lineage}, ":"))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
			t.Fatalf("%q, %v", line, err)
		}
		var locked *repository.LockedError
		if err := p.hold(t.Context(), l); !errors.As(err, &locked) {
			t.Fatalf("while it lives: %v", err)
		}
		p.abandon()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		_ = in.Close()
		if next == state {
			if err := p.hold(t.Context(), l); err != nil {
				t.Errorf("its own next: %v", err)
			}
		} else if took := untilHeld(t, p, l); took < lockLife/2 {
			t.Errorf("another took the lock over after %s", took)
		}
		p.abandon()
	}
}

// TestWhyNotHeld: who may not write hears what keeps the lock from being got, in the
// store's own words.
func TestWhyNotHeld(t *testing.T) {
	place, lineage := newPlace(t)
	at, err := fs.Open(place)
	if err != nil {
		t.Fatal(err)
	}
	faults := fault.New(at, 1)
	repo, err := repository.Open(t.Context(), faults, repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.Lineage(t.Context(), lineage)
	if err != nil {
		t.Fatal(err)
	}
	p := New(Config{Cluster: "c", Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	faults.Set(fault.Rule{Action: fault.Fail(fmt.Errorf("%w: connection refused", blob.ErrUnreachable))})
	if err := p.hold(t.Context(), l); !errors.Is(err, blob.ErrUnreachable) {
		t.Fatal(err)
	}
	err = p.held.may()
	if !errors.Is(err, errNotHeld) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("who may not write hears %v", err)
	}
	if reason, _ := checkup.Explain(err, checkup.Names{}); reason != "StorageUnreachable" {
		t.Errorf("which is called %s", reason)
	}
	faults.Set()
	if err := p.hold(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if err := p.held.may(); err != nil {
		t.Errorf("with the lock: %v", err)
	}
	p.abandon()
}

// TestStoreAwayKeepsArchiving: while nobody can say whose the lineage is the Archiver
// goes on, and may not write; where it is another's it ends.
func TestStoreAwayKeepsArchiving(t *testing.T) {
	place, lineage := newPlace(t)
	p, l, err := protectorOf(t.Context(), t.TempDir(), place, lineage)
	if err != nil {
		t.Fatal(err)
	}
	archivingNow := func() *archiving {
		done := make(chan struct{})
		return &archiving{stop: sync.OnceFunc(func() { close(done) }), done: done}
	}
	p.arch = archivingNow()
	if err := p.hold(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if err := p.held.may(); err != nil {
		t.Errorf("with the lock: %v", err)
	}
	p.release()
	if err := p.held.may(); !errors.Is(err, errNotHeld) {
		t.Errorf("without the lock: %v", err)
	}
	if err := p.refuse(t.Context(), nil, repository.ErrLockLost); !errors.Is(err, repository.ErrLockLost) || p.arch == nil {
		t.Errorf("%v, and the Archiver ended: %t", err, p.arch == nil)
	}
	if err := p.refuse(t.Context(), nil, &repository.LockedError{}); err == nil || p.arch != nil {
		t.Errorf("%v, and the Archiver goes on: %t", err, p.arch != nil)
	}
}

// TestLockGivenOver: a lock that the process has already goes to the Protector without a
// moment in which another could take it, and its life is the Identity's.
func TestLockGivenOver(t *testing.T) {
	place, lineage := newPlace(t)
	a, al, err := protectorOf(t.Context(), t.TempDir(), place, lineage)
	if err != nil {
		t.Fatal(err)
	}
	b, bl, err := protectorOf(t.Context(), t.TempDir(), place, lineage)
	if err != nil {
		t.Fatal(err)
	}
	a.cfg.Identity.LocksLast(quick)
	lock, err := Lock(t.Context(), al, a.cfg.Identity)
	if err != nil {
		t.Fatal(err)
	}
	given := 0
	a.cfg.Held = func(l string) *repository.Lock {
		if l != lineage || given > 0 {
			return nil
		}
		given++
		return lock
	}
	if err := a.hold(t.Context(), al); err != nil || a.held.lock != lock || a.held.may() != nil {
		t.Fatalf("%v, another lock: %t", err, a.held.lock != lock)
	}
	var locked *repository.LockedError
	if _, err := Lock(t.Context(), bl, b.cfg.Identity); !errors.As(err, &locked) {
		t.Errorf("beside it another has it: %v", err)
	}
	a.release()
	if lock, err = Lock(t.Context(), bl, b.cfg.Identity); err != nil {
		t.Errorf("given back: %v", err)
	} else if err := lock.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLockComesWhileAsked: a Protector that waits for the lock goes on as soon as its
// process has got it another way. Nobody else would ever give that one up.
func TestLockComesWhileAsked(t *testing.T) {
	quickLocks(t)
	place, lineage := newPlace(t)
	former, fl, err := protectorOf(t.Context(), t.TempDir(), place, lineage)
	if err != nil {
		t.Fatal(err)
	}
	a, al, err := protectorOf(t.Context(), t.TempDir(), place, lineage)
	if err != nil {
		t.Fatal(err)
	}
	var claimed *repository.Lock
	a.cfg.Held = func(string) *repository.Lock {
		defer func() { claimed = nil }()
		return claimed
	}
	untilHeld(t, former, fl)
	var locked *repository.LockedError
	if err := a.hold(t.Context(), al); !errors.As(err, &locked) {
		t.Fatalf("beside the former: %v", err)
	}
	former.abandon()
	if claimed, err = Lock(t.Context(), al, a.cfg.Identity); err != nil {
		t.Fatal(err)
	}
	lock := claimed
	if err := a.hold(t.Context(), al); err != nil || a.held.lock != lock || a.held.asking != nil {
		t.Errorf("%v; another lock: %t", err, a.held.lock != lock)
	}
	a.abandon()
}
