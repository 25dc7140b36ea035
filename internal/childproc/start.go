// SPDX-License-Identifier: Apache-2.0

package childproc

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts cmd in a process group of its own. The kernel sends it last when this
// process ends, however it ends. The answer of cmd.Wait comes on exited, once.
func Start(cmd *exec.Cmd, last syscall.Signal) (exited chan error, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, last
	started := make(chan error, 1)
	exited = make(chan error, 1)
	go func() {
		// the kernel sends the signal when the thread ends that started it
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exited <- cmd.Wait()
		}
	}()
	return exited, <-started
}
