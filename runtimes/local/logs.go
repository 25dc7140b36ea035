// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
)

var _ runtimes.LogReader = (*Runtime)(nil)

// logPoll is how often a log that is followed is looked at, and logMoved how often it
// is asked where it is.
const (
	logPoll  = 250 * time.Millisecond
	logMoved = 2 * time.Second
)

// Logs writes lines of the log of a cluster's server, or of what the agent did for it.
func (r *Runtime) Logs(ctx context.Context, c *v1alpha1.Cluster, o runtimes.LogOptions, w io.Writer) error {
	place, keep := func(ctx context.Context) (string, error) { return r.serverLog(ctx, c) }, func([]byte) bool { return true }
	if o.Agent {
		place, keep = r.agentLog, aboutCluster(c.Namespace+"/"+c.Name)
	}
	path, err := place(ctx)
	if err != nil {
		return err
	}
	t, err := openTail(path, o.Tail, keep)
	if err != nil {
		return err
	}
	defer func() { t.file.Close() }()
	if err := t.copy(w, !o.Follow); err != nil || !o.Follow {
		return err
	}
	asked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(logPoll):
		}
		if err := t.copy(w, false); err != nil {
			return err
		}
		if time.Since(asked) < logMoved && !t.truncated() {
			continue
		}
		asked = time.Now()
		if path, err = place(ctx); err != nil {
			continue // the server may be away for a while
		}
		if !t.moved(path) {
			continue
		}
		next, err := openTail(path, -1, keep)
		if err != nil {
			continue
		}
		if err := t.copy(w, true); err != nil {
			return errors.Join(err, next.file.Close())
		}
		t.file.Close()
		t = next
	}
}

// tail reads lines from a file that grows.
type tail struct {
	path string
	file *os.File
	in   *bufio.Reader
	keep func(line []byte) bool
	part []byte // of a line whose end is not there yet
	read int64
}

// openTail opens a log before its last n lines that are kept, or its beginning if n
// is negative.
func openTail(path string, n int, keep func([]byte) bool) (*tail, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	t := &tail{path: path, file: f, keep: keep}
	if n >= 0 {
		if t.read, err = lastKept(f, n, keep); err == nil {
			_, err = f.Seek(t.read, io.SeekStart)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read the log: %w", err), f.Close())
		}
	}
	t.in = bufio.NewReader(f)
	return t, nil
}

// lastKept is where the last n kept lines of a file begin. It reads backwards, so that
// a long log costs what is wanted of it.
func lastKept(f *os.File, n int, keep func([]byte) bool) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, err
	}
	const chunk = 64 << 10
	var rest []byte // of the line that begins before it
	at, found := end, 0
	for at > 0 {
		size := min(at, chunk)
		at -= size
		b := make([]byte, size, int(size)+len(rest))
		if _, err := f.ReadAt(b, at); err != nil {
			return 0, err
		}
		b = append(b, rest...)
		for {
			i := bytes.LastIndexByte(bytes.TrimSuffix(b, []byte("\n")), '\n')
			if i < 0 && at > 0 {
				break
			}
			if line := b[i+1:]; len(line) > 0 && keep(line) {
				if found++; found == n {
					return at + int64(i) + 1, nil
				}
			}
			if i < 0 {
				return 0, nil
			}
			b = b[:i+1]
		}
		rest = b
	}
	return 0, nil
}

// copy writes the lines that are there; with all, also one without its end.
func (t *tail) copy(w io.Writer, all bool) error {
	for {
		b, err := t.in.ReadBytes('\n')
		t.read += int64(len(b))
		t.part = append(t.part, b...)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the log: %w", err)
		}
		end := err != nil
		if end && (!all || len(t.part) == 0) {
			return nil
		}
		if t.keep(t.part) {
			if end {
				t.part = append(t.part, '\n')
			}
			if _, err := w.Write(t.part); err != nil {
				return err
			}
		}
		t.part = t.part[:0]
		if end {
			return nil
		}
	}
}

func (t *tail) truncated() bool {
	st, err := t.file.Stat()
	return err == nil && st.Size() < t.read
}

// moved tells whether the log is now another file, or begins anew.
func (t *tail) moved(path string) bool {
	if path != t.path || t.truncated() {
		return true
	}
	old, err := t.file.Stat()
	if err != nil {
		return true
	}
	now, err := os.Stat(path)
	return err == nil && !os.SameFile(old, now)
}

// aboutCluster keeps lines of the agent's log that are about one cluster.
func aboutCluster(name string) func([]byte) bool {
	return func(line []byte) bool {
		var x struct{ Cluster string }
		return bytes.Contains(line, []byte(name)) && json.Unmarshal(line, &x) == nil && x.Cluster == name
	}
}

// serverLog is the file that a cluster's server writes its log to.
func (r *Runtime) serverLog(ctx context.Context, c *v1alpha1.Cluster) (string, error) {
	ours := filepath.Join(r.cluster(c.Namespace, c.Name), "server.log")
	if c.Spec.Local == nil || !c.Spec.Local.Attached {
		if _, err := os.Stat(ours); err != nil {
			return "", fmt.Errorf("read the log: %w", err)
		}
		return ours, nil
	}
	conn, err := r.Admin(ctx, c, "postgres")
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Its collector's file; else where its postmaster's stderr goes.
	var current *string
	if err := conn.QueryRow(ctx, "select pg_current_logfile()").Scan(&current); err != nil {
		return "", fmt.Errorf("ask the server for its log: %w", err)
	}
	data := c.Status.DataDirectory
	if current != nil && *current != "" {
		if filepath.IsAbs(*current) {
			return *current, nil
		}
		return filepath.Join(data, *current), nil
	}
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return "", fmt.Errorf("find the server's log: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return "", fmt.Errorf("find the server's log: %w", err)
	}
	return logOfProcess(pid, "cluster "+c.Name)
}

// agentLog is the file that the agent of this machine writes to, wherever else its
// words go.
func (r *Runtime) agentLog(context.Context) (string, error) { return r.layout.log(), nil }

var unitForm = regexp.MustCompile(`([^/]+\.service)`)

// logOfProcess is the file that a process's stderr goes to.
func logOfProcess(pid int, whose string) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", pid))
	if err != nil {
		return "", fmt.Errorf("find the log of %s: %w", whose, err)
	}
	if st, err := os.Stat(path); filepath.IsAbs(path) && err == nil && st.Mode().IsRegular() {
		return path, nil
	}
	e := &runtimes.LogElsewhereError{Whose: whose}
	if group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err == nil && strings.HasPrefix(path, "socket:") {
		if units := unitForm.FindAllString(string(group), -1); len(units) > 0 {
			e.Command = "journalctl -u " + units[len(units)-1]
		}
	}
	return "", e
}
