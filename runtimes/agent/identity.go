// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/atomicfile"
)

// Identity says which process this is, to other agents of one repository. What it
// prints stands in locks, for people and for the next agent.
type Identity struct {
	place        string // the state directory
	host         string
	installation string // random, and kept in the state directory
	program      string // random: a program that takes this one's place by exec is another
	life         life
	alone        bool // no other process has the state directory
	renewing     time.Duration

	mu    sync.Mutex
	locks map[string]*repository.Lock // that were taken last, by name
}

// holds tells whether some part of this process holds a lock now.
func (id *Identity) holds(name string) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	l := id.locks[name]
	return l != nil && l.Context().Err() == nil
}

func (id *Identity) took(name string, l *repository.Lock) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.locks == nil {
		id.locks = map[string]*repository.Lock{}
	}
	id.locks[name] = l
}

// life is a process. Two with equal boot and space can see each other.
type life struct {
	boot  string // of the kernel
	space string // the inode of the process ids' namespace
	pid   int
	start string // when it was started, in ticks since boot
}

// installationFile is where a state directory keeps the name of the installation. A
// copy of the directory has it too: that two agents share it does not make them one.
const installationFile = "installation"

// Identify says who this process is, as the agent of a state directory, which it gives
// a name of its own if it has none.
func Identify(dir string) (*Identity, error) {
	path := filepath.Join(dir, installationFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte(randomName() + "\n")
		err = atomicfile.Write(path, b, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("name the installation: %w", err)
	}
	id := &Identity{place: dir, installation: strings.TrimSpace(string(b)), program: randomName(), life: thisLife()}
	if !regexp.MustCompile(`^[0-9a-f]+$`).MatchString(id.installation) {
		return nil, fmt.Errorf("%s does not hold the name of an installation", path)
	}
	id.host, _ = os.Hostname() // for people alone
	return id, nil
}

// Alone says that nobody else can have the state directory, as in a pod on a volume that
// one pod at a time has: whoever held a lock from there has ended. It is said before the
// identity is used.
func (id *Identity) Alone() *Identity {
	id.alone = true
	return id
}

// LocksLast sets the time to live of the locks that are taken: how long whoever comes
// after a holder that died waits. An hour of holding one costs 9 requests a life: at 24
// seconds 1350, at a minute 540. It is said before the identity is used.
func (id *Identity) LocksLast(life time.Duration) *Identity {
	id.renewing = life
	return id
}

func (id *Identity) lockLife() time.Duration {
	if id == nil || id.renewing == 0 {
		return lockLife
	}
	return id.renewing
}

func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// thisLife leaves empty what this system does not tell.
func thisLife() life {
	l := life{pid: os.Getpid()}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		l.boot = strings.TrimSpace(string(b))
	}
	if s, err := os.Readlink("/proc/self/ns/pid"); err == nil {
		l.space = strings.Trim(strings.TrimPrefix(s, "pid:"), "[]")
	}
	l.start, _ = startOf(l.pid)
	return l
}

// startOf is when a process was started; "" and no error if there is none of that number.
func startOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	// the name in brackets may hold anything
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", errors.New("the kernel's words about a process are not understood")
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", nil // it has ended, and its parent has not looked yet
	}
	return fields[19], nil
}

func (id *Identity) String() string {
	return fmt.Sprintf("the agent of %s on %s (pid %d started %s, boot %s/%s, program %s, installation %s)",
		id.place, id.host, id.life.pid, id.life.start, id.life.boot, id.life.space, id.program, id.installation)
}

var holderForm = regexp.MustCompile(`\(pid (\d+) started (\d+), boot ([0-9a-f-]+)/(\d+), program ([0-9a-f]+), installation ([0-9a-f]+)\)$`)

// Gone tells that the holder of a lock is an agent of the same installation whose
// process has ended for certain. Where it cannot be seen from here, on another
// machine or before this one was booted, it is not known to be gone.
func (id *Identity) Gone(holder string) bool {
	m := holderForm.FindStringSubmatch(holder)
	if m == nil || m[6] != id.installation {
		return false
	}
	if id.alone {
		return m[5] != id.program
	}
	if m[3] != id.life.boot || m[4] != id.life.space {
		return false
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		return false
	}
	if pid == id.life.pid && m[2] == id.life.start {
		return m[5] != id.program
	}
	start, err := startOf(pid)
	return err == nil && start != m[2]
}
