// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/pg"
)

// Feed brings WAL from the repository into the pg_wal of a server that recovers, ahead of
// it. The server's restore_command only looks whether a segment is there: it says then that
// it has nothing to give, and PostgreSQL looks into pg_wal. What is not there is asked for
// with Await, which ends the recovery only if the Feed says so, and breaks it off if the
// Feed failed or died.
//
//	repository ──fetch, several at once──▶ pg_wal/SEGMENT, and then dir/SEGMENT, empty
//	                                       dir/coming-SEGMENT: it is being fetched
//	                                       dir/took-SEGMENT ◀── restore_command
//	                                       dir/want-NAME ◀── Await
//	                                       dir/absent-NAME, dir/failed ──▶ Await
//	                                       dir/NAME.history ──cp──▶ pg_wal
type Feed struct {
	Dir   string // on the file system of WAL
	WAL   string // the server's pg_wal
	First uint64 // number of the first segment
	Last  uint64 // of the last; what lies behind it is absent
	Ahead int    // how many segments may wait to be taken
	Jobs  int    // how many are fetched at once

	Size pg.SegmentSize
	// Segment names segment n on the path that is recovered.
	Segment func(n uint64) pg.Segment
	// Fetch gives its raw bytes, padded to a whole segment. They may be in room, which is
	// what it gave before, if anything: memory that is used already costs nothing.
	Fetch func(ctx context.Context, n uint64, room []byte) ([]byte, error)
	// Histories are the history files that the server may ask for, by name.
	Histories map[string][]byte
	// Own sets the owner of a file, if the server runs as another user.
	Own func(path string) error
	// Fed, if set, is told each segment when it is ready.
	Fed func(n uint64)

	numbers map[string]uint64 // of the segments on the path, by name

	mu    sync.Mutex
	rooms [][]byte        // for Fetch
	begun map[uint64]bool // fetched once, or being fetched
	under map[uint64]bool // being fetched
}

const (
	feedLock   = "lock"
	feedFailed = "failed"
	wantPrefix = "want-"
	absentMark = "absent-"
	comingMark = "coming-"
	tookMark   = "took-"
	feedPoll   = 10 * time.Millisecond
	// feedGrace is how long nobody may hold the lock: a Feed begins at the same
	// time as the server, on a disk that may be busy, and whoever looks holds the
	// lock for a moment.
	feedGrace = 3 * time.Second
)

// Run feeds until ctx ends. An error is also told to the recovering server, which
// then breaks off.
func (f *Feed) Run(ctx context.Context) error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("feed WAL: %w", err)
	}
	lock := flock.New(filepath.Join(f.Dir, feedLock))
	lctx, cancel := context.WithTimeout(ctx, feedGrace)
	defer cancel()
	if ok, err := lock.TryLockContext(lctx, feedPoll); !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("another process does")
		}
		return fmt.Errorf("feed WAL into %s: %w", f.Dir, err)
	}
	defer lock.Close()
	if err := f.clear(); err != nil {
		return fmt.Errorf("feed WAL: %w", err)
	}
	for _, path := range []string{f.Dir, filepath.Join(f.Dir, feedLock)} {
		if err := f.own(path); err != nil {
			return err
		}
	}
	f.numbers, f.begun, f.under = map[string]uint64{}, map[uint64]bool{}, map[uint64]bool{}
	for n := f.First; n <= f.Last; n++ {
		f.numbers[f.Size.Name(f.Segment(n))] = n
	}
	for name, content := range f.Histories {
		if err := f.bring(name, content); err != nil {
			return f.fail(err)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.ahead(gctx) })
	g.Go(func() error { return f.answer(gctx) })
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return f.fail(err)
	}
	return nil
}

// clear removes what an earlier Feed left, its failure above all. What is wanted
// may be wanted of this one.
func (f *Feed) clear() error {
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == feedLock || strings.HasPrefix(e.Name(), wantPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(f.Dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// fail tells the server why there is no more.
func (f *Feed) fail(err error) error {
	return errors.Join(err, f.bring(feedFailed, []byte(err.Error()+"\n")))
}

// ahead brings all segments in order of need, as many at once as may be.
func (f *Feed) ahead(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(f.Jobs, 1))
	for n := f.First; n <= f.Last; n++ {
		if err := f.room(ctx, n); err != nil {
			if gerr := g.Wait(); gerr != nil {
				return gerr
			}
			return err
		}
		f.mu.Lock()
		begun := f.begun[n]
		f.mu.Unlock()
		if begun {
			continue // asked for out of turn; if it is needed again it is asked for again
		}
		g.Go(func() error { return f.one(ctx, n) })
	}
	return g.Wait()
}

// room waits until few enough segments wait to be taken.
func (f *Feed) room(ctx context.Context, n uint64) error {
	behind := n - f.First
	if behind < uint64(f.Ahead) {
		return ctx.Err()
	}
	oldest := f.Size.Name(f.Segment(n - uint64(f.Ahead)))
	for {
		switch err := os.Remove(filepath.Join(f.Dir, tookMark+oldest)); {
		case err == nil:
			// should it be asked for again it is brought again
			if err := os.Remove(filepath.Join(f.Dir, oldest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("feed WAL: %w", err)
			}
			return ctx.Err()
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("feed WAL: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(feedPoll):
		}
	}
}

// one fetches segment n, unless that is being done.
func (f *Feed) one(ctx context.Context, n uint64) error {
	f.mu.Lock()
	under := f.under[n]
	f.begun[n], f.under[n] = true, true
	f.mu.Unlock()
	if under {
		return nil
	}
	defer func() {
		f.mu.Lock()
		delete(f.under, n)
		f.mu.Unlock()
	}()
	name := f.Size.Name(f.Segment(n))
	coming := filepath.Join(f.Dir, comingMark+name)
	if err := os.WriteFile(coming, nil, 0o600); err != nil {
		return fmt.Errorf("feed WAL: %w", err)
	}
	raw, err := f.Fetch(ctx, n, f.spare())
	if err != nil {
		return fmt.Errorf("fetch WAL segment %s: %w", name, err)
	}
	if err := f.place(filepath.Join(f.WAL, name), raw); err != nil {
		return err
	}
	if err := f.bring(name, nil); err != nil {
		return err
	}
	f.mu.Lock()
	f.rooms = append(f.rooms, raw)
	f.mu.Unlock()
	if err := os.Remove(coming); err != nil {
		return fmt.Errorf("feed WAL: %w", err)
	}
	if f.Fed != nil {
		f.Fed(n)
	}
	return nil
}

// spare is memory for a segment; nil: there is none yet.
func (f *Feed) spare() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.rooms) - 1
	if n < 0 {
		return nil
	}
	b := f.rooms[n]
	f.rooms = f.rooms[:n]
	return b
}

// bring puts a whole file into Dir under its name.
func (f *Feed) bring(name string, content []byte) error {
	return f.place(filepath.Join(f.Dir, name), content)
}

// place puts a whole file at path.
func (f *Feed) place(path string, content []byte) error {
	tmp := filepath.Join(f.Dir, "."+filepath.Base(path))
	if err := writeFile(tmp, content); err != nil {
		return fmt.Errorf("feed WAL: %w", err)
	}
	if err := f.own(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("feed WAL: %w", err)
	}
	return nil
}

// writeFile writes a file in small pieces. For large ones the kernel takes memory in large
// pieces, which on a virtual machine are those that the host has taken away: it then gives
// them back one page at a time, and writing takes five times as long.
func writeFile(path string, content []byte) (err error) {
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	for piece := range slices.Chunk(content, 64<<10) {
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

func (f *Feed) own(path string) error {
	if f.Own == nil {
		return nil
	}
	return f.Own(path)
}

// answer looks for what Await wants: a segment that was taken before is brought
// again, and what is not on the path is declared absent.
func (f *Feed) answer(ctx context.Context) error {
	for {
		entries, err := os.ReadDir(f.Dir)
		if err != nil {
			return fmt.Errorf("feed WAL: %w", err)
		}
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), wantPrefix)
			if !ok {
				continue
			}
			err := os.Remove(filepath.Join(f.Dir, e.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // who wanted it has it
			}
			if err != nil {
				return fmt.Errorf("feed WAL: %w", err)
			}
			if err := f.give(ctx, name); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(feedPoll):
		}
	}
}

func (f *Feed) give(ctx context.Context, name string) error {
	if _, err := os.Lstat(filepath.Join(f.Dir, name)); err == nil {
		return nil
	}
	if content, ok := f.Histories[name]; ok {
		return f.bring(name, content)
	}
	if n, ok := f.numbers[name]; ok {
		// also one that is not due yet: a recovery begins with the record of the
		// backup's checkpoint, which can lie far behind the first segment
		return f.one(ctx, n)
	}
	return f.bring(absentMark+name, nil)
}

// Command is the restore_command for a Feed: a file that waits, or will in a moment, is
// taken by the shell alone; all else is asked with Await, through a program that is called with
// args, the directory, %f and %p. It fails if a path cannot be quoted.
func (f *Feed) Command(program string, args ...string) (string, error) {
	words := append([]string{program}, args...)
	for i, w := range append(words, f.Dir) {
		if strings.ContainsAny(w, "'%\\\n") {
			return "", fmt.Errorf("path %q has a character that restore_command cannot carry", w)
		}
		if i < len(words) {
			words[i] = "'" + w + "'"
		}
	}
	// Starting the program takes the time of ten sleeps of the shell's, and mv would take
	// longer than all else that is done here.
	return fmt.Sprintf(`for i in 1 2 3 4 5 6 7 8 9 10; do [ -e '%[1]s/coming-%%f' ] && sleep 0.004 || break; done; `+
		`[ -f '%[1]s/%%f' ] && case %%f in *.history) cp '%[1]s/%%f' "%%p" && exit 0;; *) : >'%[1]s/took-%%f' && exit %[3]d;; esac; `+
		`exec %[2]s '%[1]s' %%f "%%p"`, f.Dir, strings.Join(words, " "), AwaitAbsent), nil
}

// The exit codes of a restore_command. Up to 125 PostgreSQL reads as "there is no
// such file" and may end the recovery there; above, it breaks off.
const (
	AwaitFound  = 0
	AwaitAbsent = 1 // or it is in pg_wal
	AwaitBroken = 200
)

// Await waits until the Feed at dir has a file. A history file it takes to path; a segment
// is in pg_wal then, and AwaitAbsent is the answer that has PostgreSQL look there. The error
// comes with AwaitBroken and says why recovery must not go on.
func Await(ctx context.Context, dir, name, path string) (code int, err error) {
	if strings.ContainsAny(name, "/\\") {
		return AwaitBroken, fmt.Errorf("%q is not a WAL file name", name)
	}
	file, want := filepath.Join(dir, name), filepath.Join(dir, wantPrefix+name)
	asked := false
	var dead time.Duration
	for {
		if _, err := os.Lstat(file); err == nil {
			if asked {
				// or the Feed would bring a second one that nobody takes
				if err := os.Remove(want); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return AwaitBroken, err
				}
			}
			return take(dir, name, path)
		}
		if reason, err := os.ReadFile(filepath.Join(dir, feedFailed)); err == nil {
			return AwaitBroken, fmt.Errorf("WAL cannot be fed: %s", strings.TrimSpace(string(reason)))
		}
		absent := filepath.Join(dir, absentMark+name)
		if _, err := os.Lstat(absent); err == nil {
			if err := os.Remove(absent); err != nil {
				return AwaitBroken, err
			}
			return AwaitAbsent, nil
		}
		switch ok, err := alive(dir); {
		case err != nil:
			return AwaitBroken, fmt.Errorf("the process that feeds WAL cannot be looked for: %w", err)
		case ok && asked:
			dead = 0
		case ok:
			asked, dead = true, 0
			if err := os.WriteFile(want, nil, 0o600); err != nil {
				return AwaitBroken, err
			}
		case dead >= feedGrace:
			return AwaitBroken, errors.New("the process that feeds WAL has died")
		default:
			dead += feedPoll
		}
		select {
		case <-ctx.Done():
			return AwaitBroken, ctx.Err()
		case <-time.After(feedPoll):
		}
	}
}

func take(dir, name, path string) (int, error) {
	if !strings.HasSuffix(name, ".history") {
		if err := os.WriteFile(filepath.Join(dir, tookMark+name), nil, 0o600); err != nil {
			return AwaitBroken, err
		}
		return AwaitAbsent, nil
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return AwaitBroken, err
	}
	return AwaitFound, nil
}

// alive tells whether somebody holds the Feed's lock: a Feed that died must not look
// like the end of the log.
func alive(dir string) (bool, error) {
	lock := flock.New(filepath.Join(dir, feedLock))
	defer lock.Close()
	ok, err := lock.TryRLock()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the directory is not there yet, or no more
	}
	return !ok, err
}
