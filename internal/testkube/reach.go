// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Expose gives pods a server of this machine: what they connect to at the address that it
// returns goes to address, until the test ends.
func (c *Cluster) Expose(t testing.TB, address string) string {
	t.Helper()
	return c.Door(t, address).Address
}

// listen makes a socket of the first node's network; port 0 is a free one.
func (c *Cluster) listen(port int) (net.Listener, error) {
	plan, err := c.plan()
	if err != nil {
		return nil, err
	}
	return onNetwork(plan.Init, func() (net.Listener, error) {
		return net.ListenTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(plan.Nodes[0].IP), Port: port})
	})
}

// Dial connects to an IP address and port as a program on the first node would: to a
// pod's, or a Service's.
func (c *Cluster) Dial(ctx context.Context, address string) (net.Conn, error) {
	plan, err := c.plan()
	if err != nil {
		return nil, err
	}
	return onNetwork(plan.Init, func() (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp4", address)
	})
}

// onNetwork makes a socket in the network of a process. A socket stays in the network that
// its thread was in when it was made.
func onNetwork[S any](pid int, open func() (S, error)) (S, error) {
	var none S
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return none, err
	}
	defer there.Close()
	type made struct {
		socket S
		err    error
	}
	done := make(chan made)
	go func() {
		// the thread ends with the goroutine, and is never anybody else's
		runtime.LockOSThread()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- made{err: err}
			return
		}
		s, err := open()
		done <- made{s, err}
	}()
	m := <-done
	if m.err != nil {
		return none, m.err
	}
	return m.socket, nil
}

// Program is the kbcli that KbcliImage has.
func (c *Cluster) Program() string { return filepath.Join(c.dir, "images", "kbcli") }

// Renew builds kbcli again and gives it to the nodes: pods that start from here on run it.
func (c *Cluster) Renew() error {
	plan, err := c.plan()
	if err != nil {
		return err
	}
	archive, err := kbcliArchive(filepath.Join(c.dir, "images"))
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range plan.Nodes {
		socket := filepath.Join(c.dir, m.Name, "containerd.sock")
		_, err := c.inside("ctr", "-a", socket, "-n", "k8s.io", "images", "import", archive)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
