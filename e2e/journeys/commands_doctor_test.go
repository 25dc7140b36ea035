// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func init() { commands["s3link"] = cmdS3Link }

// link is a way to the S3 server that can be cut, for one script alone.
type link struct {
	addr, target string

	mu    sync.Mutex
	state string // open, cut, hanging, or the code of an S3 error that answers everything
	l     net.Listener
	conns map[net.Conn]bool
	done  sync.WaitGroup
}

var links sync.Map // by the address that the script knows

// cmdS3Link makes a link and puts its URL into a variable; cuts it, so that connections
// are refused; lets it hang, so that nobody answers; has all denied, as with a key that
// was taken away, or told that the key has expired; and mends it.
func cmdS3Link(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: s3link open|cut|hang|deny|expire|mend VARIABLE")
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
	state, ok := map[string]string{"cut": "cut", "hang": "hanging", "mend": "open", "deny": "AccessDenied", "expire": "ExpiredToken"}[args[0]]
	if !ok {
		ts.Fatalf("s3link: %q is not open, cut, hang, deny, expire or mend", args[0])
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
		n.mu.Lock()
		state := n.state
		n.mu.Unlock()
		if state != "open" && state != "hanging" {
			refuseS3(c, state)
			continue
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

// refuseS3 answers one request as S3 does when it does not want to.
func refuseS3(c net.Conn, code string) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	text := `<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>no</Message></Error>`
	if r.Method == http.MethodHead {
		text = ""
	}
	status := "403 Forbidden"
	if code == "ExpiredToken" {
		status = "400 Bad Request"
	}
	fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(text), text)
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
