// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/internal/atomicfile"
)

// DivergedError says that the server now sends other bytes for a position than it
// did before: its data directory was replaced or wound back.
type DivergedError struct {
	Timeline pg.TimelineID
	LSN      pg.LSN
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("the server's WAL at %s on timeline %s differs from what was archived before: its data directory was replaced or wound back", e.LSN, e.Timeline)
}

// spool holds raw segments on the local disk, each a file under its own name that
// grows as WAL arrives, and the history files of the timelines among them. A
// file's size is how much of the segment is held, but for the newest after a start:
// see trim.
type spool struct {
	dir  string
	size pg.SegmentSize

	mu      sync.Mutex
	written map[pg.Segment]int64 // bytes held, from the segment's start
	total   int64
	open    *os.File // the segment being written
	cur     pg.Segment
	dirty   bool // the directory has entries that are not synced
}

func openSpool(dir string, size pg.SegmentSize) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &spool{dir: dir, size: size}
	return s, s.load()
}

// load looks at what there is. Nothing may be written meanwhile.
func (s *spool) load() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written, s.total = map[pg.Segment]int64{}, 0
	for _, e := range entries {
		g, err := s.size.ParseName(e.Name())
		if err != nil {
			continue // history files, the position
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process is about to end its work
		}
		if err != nil {
			return fmt.Errorf("open spool: %w", err)
		}
		if info.Size() > int64(s.size) {
			return fmt.Errorf("open spool: %s has %d bytes, more than a segment", e.Name(), info.Size())
		}
		s.written[g] = info.Size()
		s.total += info.Size()
	}
	return nil
}

func (s *spool) path(g pg.Segment) string { return filepath.Join(s.dir, s.size.Name(g)) }

// held is how many bytes of g there are from its start.
func (s *spool) held(g pg.Segment) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written[g]
}

// modified is when g was last written to.
func (s *spool) modified(g pg.Segment) (time.Time, bool) {
	info, err := os.Stat(s.path(g))
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// bytes is what the whole spool takes.
func (s *spool) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// segments lists what is held, by timeline and number.
func (s *spool) segments() []pg.Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]pg.Segment, 0, len(s.written))
	for g := range s.written {
		out = append(out, g)
	}
	slices.SortFunc(out, compareSegments)
	return out
}

// write stores b at lsn, which lies in one segment and follows what is held or
// repeats it.
func (s *spool) write(tli pg.TimelineID, lsn pg.LSN, b []byte) error {
	g := pg.Segment{Timeline: tli, Number: s.size.Number(lsn)}
	off := s.size.Offset(lsn)
	held := s.held(g)
	if off > held {
		return fmt.Errorf("spool: WAL at %s does not follow what is held", lsn)
	}
	f, err := s.use(g)
	if err != nil {
		return err
	}
	if again := min(held-off, int64(len(b))); again > 0 {
		have := make([]byte, again)
		if _, err := f.ReadAt(have, off); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		if !bytes.Equal(have, b[:again]) {
			i := 0
			for have[i] == b[i] {
				i++
			}
			return &DivergedError{tli, lsn + pg.LSN(i)}
		}
		b, off = b[again:], off+again
	}
	if len(b) == 0 {
		return nil
	}
	if _, err := f.WriteAt(b, off); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.mu.Lock()
	s.written[g] = off + int64(len(b))
	s.total += int64(len(b))
	s.mu.Unlock()
	return nil
}

// use opens the file of g for writing. The segment before is made durable first,
// so that sync has one file to care for.
func (s *spool) use(g pg.Segment) (*os.File, error) {
	s.mu.Lock()
	f, cur := s.open, s.cur
	s.mu.Unlock()
	if f != nil && cur == g {
		return f, nil
	}
	if f != nil {
		if err := s.sync(); err != nil {
			return nil, err
		}
	}
	next, err := os.OpenFile(s.path(g), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil { // else the shipper has removed it meanwhile
		err = s.open.Close()
	}
	s.open, s.cur, s.dirty = next, g, true
	if _, ok := s.written[g]; !ok {
		s.written[g] = 0
	}
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return next, nil
}

// sync makes everything written durable. Its error is final: what the kernel could
// not write once is not asked for again.
func (s *spool) sync() error {
	s.mu.Lock()
	f, dirty := s.open, s.dirty
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	if err := fdatasync(f); err != nil {
		s.mu.Lock()
		moved := s.open != f
		s.mu.Unlock()
		if moved {
			return nil // f is closed: use synced it itself before, or it was given up
		}
		return fmt.Errorf("spool: %w", err)
	}
	if !dirty {
		return nil
	}
	if err := syncDir(s.dir); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.mu.Lock()
	if s.open == f {
		s.dirty = false
	}
	s.mu.Unlock()
	return nil
}

// fdatasync fails on a file that is closed, and keeps one that is being closed from
// giving its number to another before the call has ended.
func fdatasync(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := c.Control(func(fd uintptr) { serr = unix.Fdatasync(int(fd)) }); err != nil {
		return err
	}
	if serr != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: serr}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// reader opens a segment for reading.
func (s *spool) reader(g pg.Segment) (*os.File, error) {
	f, err := os.Open(s.path(g))
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return f, nil
}

// remove gives up a segment. Nothing depends on its being durable: a segment that
// comes back after a power cut is compared with the repository again.
func (s *spool) remove(g pg.Segment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil && s.cur == g {
		if err := s.open.Close(); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		s.open = nil
	}
	s.total -= s.written[g]
	delete(s.written, g)
	if err := os.Remove(s.path(g)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// cut lets g end at length. The bytes of the file behind it are overwritten when they
// come again.
func (s *spool) cut(g pg.Segment, length int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += length - s.written[g]
	s.written[g] = length
}

// end makes g, which nothing is added to any more, durable as it is: with no byte in
// its file that is not held.
func (s *spool) end(g pg.Segment) error {
	if err := s.sync(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(g), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(f.Truncate(s.held(g)), f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return nil
	}
	err := s.open.Close()
	s.open = nil
	return err
}

// putHistory keeps a history file until it is shipped; it is durable on return.
func (s *spool) putHistory(tli pg.TimelineID, content []byte) error {
	if err := atomicfile.Write(s.historyPath(tli), content, 0o600); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

func (s *spool) historyPath(tli pg.TimelineID) string {
	return filepath.Join(s.dir, pg.HistoryFileName(tli))
}

// history reads a history file that putHistory kept; nil if there is none.
func (s *spool) history(tli pg.TimelineID) ([]byte, error) {
	b, err := os.ReadFile(s.historyPath(tli))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return b, nil
}

func compareSegments(a, b pg.Segment) int {
	return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.Number, b.Number))
}
