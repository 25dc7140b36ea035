// SPDX-License-Identifier: Apache-2.0

package conninfo

import (
	"context"
	"fmt"
	"net"
	"runtime"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

// keep leaves one of the three identities of a thread as it is.
const keep = ^uintptr(0)

// dialAs connects while the calling thread, and no other, has the effective user and
// group of o: the kernel notes at connect(2) who that is, for the server to ask. Files
// are still looked up as root, so that the directories above the socket need not be
// open to the owner. The thread is locked meanwhile, so that nothing else runs on it,
// and ends if it cannot be made root's again.
func dialAs(ctx context.Context, o Owner, dial pgconn.DialFunc, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	got := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		var r result
		if r.err = become(o); r.err == nil {
			r.conn, r.err = dial(ctx, network, address)
		}
		if back() {
			runtime.UnlockOSThread()
		}
		got <- r
	}()
	r := <-got
	return r.conn, r.err
}

// back makes the thread root's again, as it was before become: dialAs is root's alone.
func back() bool {
	_, _, uid := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep)
	_, _, gid := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(unix.Getgid()), keep)
	return uid == 0 && gid == 0
}

func become(o Owner) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(o.GID), keep); e != 0 {
		return fmt.Errorf("take the group of %s: %w", o.Name, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(o.UID), keep); e != 0 {
		return fmt.Errorf("become %s: %w", o.Name, e)
	}
	unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0) // it has no error; without it the lookup may be refused
	return nil
}
