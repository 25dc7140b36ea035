// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
)

// supervisor is who keeps an agent running.
type supervisor string

const (
	byProcess supervisor = "process"      // nobody: a process of its own, started by the verb that needs it
	bySystem  supervisor = "systemd"      // a unit of the machine
	byUser    supervisor = "systemd-user" // a unit of the user
)

// surroundings are what the choice depends on. They are asked one by one, as needed.
type surroundings struct {
	booted  func() bool // systemd is process 1
	root    func() bool
	lingers func() bool // the user's systemd does not end when they log out
	answers func() bool // the user's systemd takes commands
}

// chooseSupervisor picks one. A user's unit is for users that linger: without that the user's
// systemd ends with their last session, and kills every server that an agent of its started.
func chooseSupervisor(want string, s surroundings) (supervisor, error) {
	switch want {
	case "", "auto":
	case string(byProcess):
		return byProcess, nil
	default:
		return "", fmt.Errorf("start the agent: KBCLI_SUPERVISOR is %q, and it can be auto or process", want)
	}
	switch {
	case !s.booted():
		return byProcess, nil
	case s.root():
		return bySystem, nil
	case s.lingers() && s.answers():
		return byUser, nil
	}
	return byProcess, nil
}

// ourSurroundings are this process's.
func ourSurroundings() surroundings {
	return surroundings{
		booted: func() bool { // as sd_booted(3)
			info, err := os.Lstat("/run/systemd/system")
			if err != nil || !info.IsDir() {
				return false
			}
			_, err = exec.LookPath("systemctl")
			return err == nil
		},
		root: func() bool { return os.Geteuid() == 0 },
		lingers: func() bool {
			u, err := user.Current()
			if err != nil {
				return false
			}
			_, err = os.Stat(filepath.Join("/var/lib/systemd/linger", u.Username))
			return err == nil
		},
		answers: func() bool { return exec.Command("systemctl", "--user", "show-environment").Run() == nil },
	}
}
