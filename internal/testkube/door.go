// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
)

// Door is a way for pods to a server of this machine, which can be shut. It may be used
// by several goroutines.
type Door struct {
	Address string // that pods connect to

	c  *Cluster
	to string // the server's

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
	open  chan struct{} // closed while what arrives is passed on
	ended bool
}

// Door opens a way to address, until the test ends.
func (c *Cluster) Door(t testing.TB, address string) *Door {
	t.Helper()
	l, err := c.listen(0)
	if err != nil {
		t.Fatalf("listen inside the node: %v", err)
	}
	d := &Door{Address: l.Addr().String(), c: c, to: address, l: l, open: make(chan struct{})}
	close(d.open)
	t.Cleanup(d.end)
	go d.serve(l)
	return d
}

// Refuse shuts the door as the end of a server does: connections break, and new ones are
// refused.
func (d *Door) Refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut()
}

// Hang shuts the door as a dead network does: connections stay, and nothing comes through
// them. What was sent meanwhile arrives when it is opened again.
func (d *Door) Hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.open:
		d.open = make(chan struct{})
	default:
	}
}

// Open lets everything through again.
func (d *Door) Open(t testing.TB) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.open:
	default:
		close(d.open)
	}
	if d.l != nil || d.ended {
		return
	}
	at, err := net.ResolveTCPAddr("tcp4", d.Address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.c.listen(at.Port)
	if err != nil {
		t.Fatalf("listen inside the node again: %v", err)
	}
	d.l = l
	go d.serve(l)
}

// shut is called with mu held.
func (d *Door) shut() {
	if d.l != nil {
		_ = d.l.Close()
		d.l = nil
	}
	for _, c := range d.conns {
		_ = c.Close()
	}
	d.conns = nil
}

func (d *Door) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	d.shut()
	select {
	case <-d.open:
	default:
		close(d.open)
	}
}

func (d *Door) serve(l net.Listener) {
	for {
		from, err := l.Accept()
		if err != nil {
			return // it was shut, or the node is down
		}
		if !d.keep(l, from) {
			_ = from.Close()
			return
		}
		go d.pass(from)
	}
}

// keep notes a connection of l; it is false where l was shut meanwhile.
func (d *Door) keep(l net.Listener, c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l != nil && d.l != l || d.ended {
		return false
	}
	d.conns = append(d.conns, c)
	return true
}

func (d *Door) forget(c net.Conn) {
	_ = c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = slices.DeleteFunc(d.conns, func(x net.Conn) bool { return x == c })
}

func (d *Door) pass(from net.Conn) {
	defer d.forget(from)
	d.wait()
	to, err := net.Dial("tcp", d.to)
	if err != nil {
		return // the client sees it
	}
	defer d.forget(to)
	if !d.keep(nil, to) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { d.copy(to, from) })
	both.Go(func() { d.copy(from, to) })
	both.Wait()
}

// wait returns when the door does not hang.
func (d *Door) wait() {
	d.mu.Lock()
	open := d.open
	d.mu.Unlock()
	<-open
}

// copy passes on what comes, until one side has no more, and says so to the other.
func (d *Door) copy(to, from net.Conn) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		d.wait()
		if n > 0 {
			if _, werr := to.Write(b[:n]); werr != nil {
				err = errors.Join(err, werr)
			}
		}
		if err != nil {
			if c, ok := to.(*net.TCPConn); ok {
				_ = c.CloseWrite() // where it is closed already the client has seen it
			}
			return
		}
	}
}
