// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// powerScript makes the overlay, and starts the machine again whenever it went down.
// $1 is an empty directory.
const powerScript = `
set -eu
cd "$1"
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
rm -rf root/usr/lib/systemd/system root/etc/systemd/system root/usr/lib/systemd/system-generators \
	root/usr/lib/systemd/system-environment-generators root/var/lib/kubeblocks root/usr/bin/kbcli
mkdir -p root/usr/lib/systemd/system root/etc/systemd/system
for target in basic sysinit shutdown multi-user network-online time-sync; do
	printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >root/usr/lib/systemd/system/$target.target
done
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' >root/usr/lib/systemd/system/multi-user.target
mkdir on
while [ -e on ]; do
	unshare --pid --fork --kill-child --mount --cgroup --uts --ipc bash -c "$2" || true
	sleep 0.2
done
`

// bootScript runs as process 1, in the overlay's directory.
const bootScript = `
set -eu
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount --rbind /sys root/sys
umount -R root/sys/fs/cgroup
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
	mount -t cgroup2 cgroup2 root/sys/fs/cgroup
else
	mount -t tmpfs tmpfs root/sys/fs/cgroup
	mkdir root/sys/fs/cgroup/systemd root/sys/fs/cgroup/unified
	mount -t cgroup -o none,name=systemd cgroup root/sys/fs/cgroup/systemd
	mount -t cgroup2 cgroup2 root/sys/fs/cgroup/unified
fi
mount -t tmpfs -o mode=755 tmpfs root/run
mkdir root/run/lock
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot root \
	/usr/lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=false
`

// host is the machine.
type host struct {
	t     *testing.T
	power *exec.Cmd
	init  int // systemd's process, as this machine numbers it
	log   *bytes.Buffer
}

func boot(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a machine of its own takes root")
	}
	for _, program := range []string{"/usr/lib/systemd/systemd", "/usr/bin/dpkg-deb", "/usr/bin/unshare"} {
		if _, err := os.Stat(program); err != nil {
			t.Fatalf("%v: install systemd, dpkg and util-linux", err)
		}
	}
	h := &host{t: t, log: &bytes.Buffer{}}
	h.power = exec.Command("unshare", "--mount", "--kill-child", "--fork", "bash", "-c", powerScript, "power", t.TempDir(), bootScript)
	h.power.Stdout, h.power.Stderr = h.log, h.log
	h.power.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.power.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-h.power.Process.Pid, syscall.SIGKILL)
		if h.init != 0 {
			_ = syscall.Kill(h.init, syscall.SIGKILL)
		}
		_ = h.power.Wait()
		if t.Failed() {
			t.Logf("the machine's console:\n%s", h.log)
		}
	})
	h.awaitUp()
	return h
}

// awaitUp waits until systemd runs, other than the one there was.
func (h *host) awaitUp() {
	h.t.Helper()
	before := h.init
	h.await("systemd", func() bool {
		pid := h.descendant(h.power.Process.Pid)
		if pid == 0 || pid == before {
			return false
		}
		h.init = pid
		_, err := h.try("systemctl is-system-running | grep -Ex 'running|degraded'")
		return err == nil
	})
}

// descendant finds the systemd below a process.
func (h *host) descendant(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(pid) + "/children")
	if err != nil {
		return 0
	}
	for _, text := range strings.Fields(string(b)) {
		child, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		if name, _ := os.ReadFile("/proc/" + text + "/comm"); strings.TrimSpace(string(name)) == "systemd" {
			return child
		}
		if found := h.descendant(child); found != 0 {
			return found
		}
	}
	return 0
}

// powerCut ends everything that runs there at once, and waits until it is up again.
func (h *host) powerCut() {
	h.t.Helper()
	if err := syscall.Kill(h.init, syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
	h.awaitUp()
}

func (h *host) try(script string) (string, error) {
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(h.init), "-m", "-p", "-u", "-i", "-C", "-r", "-w",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TZ=UTC", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"bash", "-euc", script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// run runs a script there, which must succeed, and returns what it prints.
func (h *host) run(script string) string {
	h.t.Helper()
	out, err := h.try(script)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// expect runs a script whose output must hold some words.
func (h *host) expect(script, words string) {
	h.t.Helper()
	if out := h.run(script); !strings.Contains(out, words) {
		h.t.Fatalf("%s: no %q in\n%s", script, words, out)
	}
}

func (h *host) await(what string, there func() bool) {
	h.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !there(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("waited for %s", what)
		}
	}
}

// awaitRun waits until a script succeeds and prints some words.
func (h *host) awaitRun(script, words string) {
	h.t.Helper()
	var out string
	h.await(script+" with "+words, func() bool {
		var err error
		out, err = h.try(script)
		return err == nil && strings.Contains(out, words)
	})
}

// put copies a file there.
func (h *host) put(from, to string) {
	h.t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(h.init), "root", to), b, 0o755); err != nil {
		h.t.Fatal(err)
	}
}
