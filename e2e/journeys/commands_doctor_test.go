// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"net"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

func init() { commands["s3link"] = cmdS3Link }

// link is a way to the S3 server that can be cut, for one script alone.
type link struct {
	addr, target string

	mu    sync.Mutex
	state string // open, cut, hanging
	l     net.Listener
	conns map[net.Conn]bool
	done  sync.WaitGroup
}

var links sync.Map // by the address that the script knows

// cmdS3Link makes a link and puts its URL into a variable; cuts it, so that connections
// are refused; lets it hang, so that nobody answers; and mends it.
func cmdS3Link(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: s3link open|cut|hang|mend VARIABLE")
	}
	if args[0] == "open" {
		n := &link{target: strings.TrimPrefix(ts.Getenv("S3_ENDPOINT"), "http://"), addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
		ts.Check(n.set("open"))
		ts.Defer(func() { _ = n.set("cut"); n.done.Wait() })
		ts.Setenv(args[1], "http://"+n.addr)
		links.Store(n.addr, n)
		return
	}
	have, ok := links.Load(strings.TrimPrefix(ts.Getenv(args[1]), "http://"))
	if !ok {
		ts.Fatalf("there is no link $%s", args[1])
	}
	state, ok := map[string]string{"cut": "cut", "hang": "hanging", "mend": "open"}[args[0]]
	if !ok {
		ts.Fatalf("s3link: %q is not open, cut, hang or mend", args[0])
	}
	ts.Check(have.(*link).set(state))
}

// set changes the state. Connections that there are end, but where the link hangs.
func (n *link) set(state string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = state
	if state != "hanging" {
		for c := range n.conns {
			c.Close()
		}
	}
	if state == "cut" {
		if n.l != nil {
			n.l.Close()
			n.l = nil
		}
		return nil
	}
	if n.l != nil {
		return nil
	}
	l, err := net.Listen("tcp", n.addr)
	if err != nil {
		return err
	}
	n.l, n.addr = l, l.Addr().String()
	n.done.Add(1)
	go n.serve(l)
	return nil
}

func (n *link) serve(l net.Listener) {
	defer n.done.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", n.target)
		if err != nil {
			c.Close()
			continue
		}
		n.mu.Lock()
		n.conns[c], n.conns[up] = true, true
		n.mu.Unlock()
		n.done.Add(2)
		go n.pump(c, up)
		go n.pump(up, c)
	}
}

// pump carries bytes one way. While the link hangs they are taken, and go nowhere.
func (n *link) pump(from, to net.Conn) {
	defer n.done.Done()
	defer func() {
		from.Close()
		to.Close()
		n.mu.Lock()
		delete(n.conns, from)
		n.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		k, err := from.Read(buf)
		n.mu.Lock()
		hanging := n.state == "hanging"
		n.mu.Unlock()
		if k > 0 && !hanging {
			if _, werr := to.Write(buf[:k]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
