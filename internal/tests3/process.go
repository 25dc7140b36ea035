// SPDX-License-Identifier: Apache-2.0

package tests3

import (
	"os/exec"
	"runtime"
	"syscall"
)

// process is a child that does not outlive this one.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the child is dead and waited for
}

// startProcess starts cmd so that the kernel kills it if this process dies. The
// kernel watches the thread that started it, so that thread is kept for as long
// as the child lives.
func startProcess(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is of no interest: it is killed
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}
