// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/internal/childproc"
)

// listenerFile is the number that the inherited listener has in the keeper, in init and inside.
const listenerFile = 3

// keepNode is the role node: it starts process 1 of the node's namespaces, and when that
// ends, or it is told to end itself, removes what is left.
func keepNode(dir string) (err error) {
	told := untilTold()
	var plan nodePlan
	if err := readJSON(filepath.Join(dir, planFile), &plan); err != nil {
		return err
	}
	plan.Keeper = os.Getpid()
	defer func() { err = errors.Join(err, removeRun(dir, plan)) }()
	if err := makeCgroups(cgroupName(dir), plan.Nodes); err != nil {
		return err
	}
	first, err := roleCommand("init", dir)
	if err != nil {
		return err
	}
	first.ExtraFiles = []*os.File{os.NewFile(listenerFile, "listener")}
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC}
	exited, err := childproc.Start(first, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("make the node's namespaces: %w", err)
	}
	plan.Init = first.Process.Pid
	if err := writeJSON(filepath.Join(dir, planFile), plan); err != nil {
		return err
	}
	select {
	case how := <-exited:
		return fail(dir, told, fmt.Errorf("the node ended: %w", errors.Join(how, errors.New("see its log"))))
	case <-told:
		// The end of process 1 is the end of all in its namespace, and of the mounts.
		if err := first.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		<-exited
		return nil
	}
}

// beInit is the role init: it is process 1 inside, starts the role inside, and buries
// orphans, such as the shims of containers, until that ends.
func beInit(dir string) error {
	if err := makeMountsPrivate(); err != nil {
		return err
	}
	inside, err := roleCommand("inside", dir)
	if err != nil {
		return err
	}
	inside.ExtraFiles = []*os.File{os.NewFile(listenerFile, "listener")}
	if err := inside.Start(); err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for children: %w", err)
		}
		if pid == inside.Process.Pid {
			return fmt.Errorf("what runs the node ended with status %d, signal %d", status.ExitStatus(), status.Signal())
		}
	}
}

// removeRun removes what the end of the namespaces leaves: cgroups and the directory. It
// first waits for what the kernel does in its own time.
func removeRun(dir string, plan nodePlan) error {
	if mine, err := processHas(plan.Init, dir); err != nil {
		return err
	} else if mine {
		if err := syscall.Kill(plan.Init, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", plan.Init, err)
		}
	}
	var errs []error
	name := cgroupName(dir)
	if err := patiently(func() error { return removeCgroups(name) }); err != nil {
		errs = append(errs, err)
	}
	err := patiently(func() error {
		loops, err := loopsOf(dir)
		if err == nil && len(loops) > 0 {
			err = fmt.Errorf("loop devices in use: %s", strings.Join(loops, ", "))
		}
		return err
	})
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return errors.Join(errs...) // the directory stays as a witness
	}
	return os.RemoveAll(dir)
}

// patiently tries until it goes well, for half a minute.
func patiently(f func() error) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// cgroupName is the run's own group in each hierarchy.
func cgroupName(dir string) string { return "kbcli-" + filepath.Base(dir) }

// cgroupHierarchies are where the controllers of cgroup v1 are mounted.
func cgroupHierarchies() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 2 && f[2] == "cgroup" {
			all = append(all, f[1])
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no hierarchy of cgroup v1 is mounted; a node on cgroup v2 was never tried")
	}
	return all, nil
}

// makeCgroups makes a group for each node. A new group of cpuset has no processor and no
// memory, and nothing can run in it.
func makeCgroups(name string, nodes []member) error {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		groups := []string{filepath.Join(h, name)}
		for _, m := range nodes {
			groups = append(groups, filepath.Join(h, name, m.Name))
		}
		for _, g := range groups {
			if err := os.Mkdir(g, 0o755); err != nil {
				return err
			}
			for _, set := range []string{"cpuset.cpus", "cpuset.mems"} {
				all, err := os.ReadFile(filepath.Join(filepath.Dir(g), set))
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(g, set), all, 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// removeCgroups removes the groups of a run. It fails while something runs in one.
func removeCgroups(name string) error {
	groups, err := cgroupsOf(name)
	if err != nil {
		return err
	}
	for _, g := range slices.Backward(groups) {
		if err := os.Remove(g); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a cgroup: %w", err)
		}
	}
	return nil
}
