// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kbcli/kbcli/internal/childproc"
)

// roleEnv makes a process of this program something else than it is: what, and in which
// directory. Without it init does nothing.
const roleEnv = "KBCLI_TESTKUBE_ROLE"

// role is what this program can be. Each runs in a process of its own until it is told
// to end.
func role(name string) func(dir string) error {
	switch name {
	case "control":
		return keepControl
	case "node":
		return keepNode
	case "init":
		return beInit
	case "inside":
		return runNode
	}
	return nil
}

func init() {
	name, dir, ok := strings.Cut(os.Getenv(roleEnv), " ")
	if !ok {
		return
	}
	be := role(name)
	if be == nil {
		fmt.Fprintf(os.Stderr, "testkube: there is no role %s\n", name)
		os.Exit(2)
	}
	if err := be(dir); err != nil {
		fmt.Fprintf(os.Stderr, "testkube %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// roleCommand is this program in a role. Its words go to a file in dir/log.
func roleCommand(name, dir string) (*exec.Cmd, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(plainEnv(dir), roleEnv+"="+name+" "+dir)
	log, err := logFile(dir, name)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, nil
}

// plainEnv has nothing of the tester's own: proxies and kubeconfigs would be obeyed.
func plainEnv(dir string) []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "LC_ALL=C.UTF-8"}
}

func logFile(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "log", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// daemon is a program that runs until it is told to end, and dies with this process.
type daemon struct {
	name   string
	cmd    *exec.Cmd
	exited chan error
}

// startDaemon runs a program with its words in dir/log/name.log.
func startDaemon(dir, name, program string, args ...string) (*daemon, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = plainEnv(dir)
	cmd.Dir = dir
	log, err := logFile(dir, name)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	exited, err := childproc.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &daemon{name: name, cmd: cmd, exited: exited}, nil
}

// kill returns when the daemon is dead.
func (d *daemon) kill() error {
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", d.name, err)
	}
	<-d.exited
	return nil
}

// untilTold waits for the signal to end. The keeper's parent need not send it: the kernel
// does when the parent dies.
func untilTold() <-chan os.Signal {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	return told
}

// failedFile has why a run has ended by itself. Its keeper stays until it is told to end,
// so that logs can be read, and then removes it.
const failedFile = "failed"

func fail(dir string, told <-chan os.Signal, why error) error {
	err := os.WriteFile(filepath.Join(dir, failedFile), []byte(why.Error()+"\n"+logTails(dir)), 0o644)
	<-told
	return errors.Join(why, err)
}

// failure is what fail was told, or that the keeper is gone.
func failure(dir string, exited <-chan error) error {
	select {
	case how := <-exited:
		return fmt.Errorf("its keeper ended: %w", errors.Join(how, errors.New("see its log")))
	default:
	}
	text, err := os.ReadFile(filepath.Join(dir, failedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, errors.New(string(text)))
}

func writeJSON(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o600)
}

func readJSON(name string, v any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
