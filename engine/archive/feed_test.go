// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
)

const feedSize = pg.SegmentSize(1 << 20)

func feedBytes(n uint64) []byte { return bytes.Repeat([]byte{byte(n)}, int(feedSize)) }

func feedName(n uint64) string { return feedSize.Name(pg.Segment{Timeline: 1, Number: n}) }

// feedOf feeds segments 10 to 60, a few at a time.
func feedOf(dir string) *Feed {
	return &Feed{
		Dir: dir, WAL: dir + ".wal", First: 10, Last: 60, Ahead: 4, Jobs: 2, Size: feedSize,
		Segment:   func(n uint64) pg.Segment { return pg.Segment{Timeline: 1, Number: n} },
		Fetch:     func(_ context.Context, n uint64, _ []byte) ([]byte, error) { return feedBytes(n), nil },
		Histories: map[string][]byte{"00000002.history": []byte("1\t0/1000000\tx\n")},
	}
}

type feeding struct {
	*Feed
	out  string
	stop context.CancelFunc
	done chan error
}

func startFeed(t *testing.T, f *Feed) *feeding {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if err := os.MkdirAll(f.WAL, 0o700); err != nil {
		t.Fatal(err)
	}
	x := &feeding{f, t.TempDir(), cancel, make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		x.done <- f.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return x
}

// ask runs the restore_command as PostgreSQL does, and looks into pg_wal where that gives nothing.
func (f *feeding) ask(t *testing.T, name string) (code int, content []byte, stderr string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command, err := f.Command(program, "await")
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(f.out, "RECOVERYXLOG")
	os.Remove(to)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", strings.NewReplacer("%f", name, "%p", to).Replace(command))
	var log bytes.Buffer
	cmd.Stderr = &log
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	b, err := os.ReadFile(to)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	code = cmd.ProcessState.ExitCode()
	if code == AwaitAbsent && b == nil {
		if b, err = os.ReadFile(filepath.Join(f.WAL, name)); err == nil {
			code = AwaitFound
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return code, b, log.String()
}

func (f *feeding) want(t *testing.T, name string, code int, content []byte) {
	t.Helper()
	got, b, log := f.ask(t, name)
	if got != code || !bytes.Equal(b, content) {
		t.Errorf("%s: code %d with %d bytes, want %d with %d\n%s", name, got, len(b), code, len(content), log)
		select {
		case err := <-f.done:
			t.Logf("the feed has ended: %v", err)
		default:
		}
	}
}

func TestFeed(t *testing.T) {
	t.Parallel()
	f := startFeed(t, feedOf(filepath.Join(t.TempDir(), "feed [1] of many")))
	f.want(t, "00000003.history", AwaitAbsent, nil)
	// a recovery begins where the backup's checkpoint is, then goes back
	f.want(t, feedName(40), AwaitFound, feedBytes(40))
	for n := uint64(10); n <= 60; n++ {
		f.want(t, feedName(n), AwaitFound, feedBytes(n))
	}
	f.want(t, feedName(61), AwaitAbsent, nil)
	f.want(t, feedName(60), AwaitFound, feedBytes(60))
	// what somebody left there is not taken for what was fed
	if err := os.Remove(filepath.Join(f.WAL, feedName(12))); err != nil {
		t.Fatal(err)
	}
	f.want(t, feedName(12), AwaitFound, feedBytes(12))
	for range 2 {
		f.want(t, "00000002.history", AwaitFound, f.Histories["00000002.history"])
		f.want(t, "00000003.history", AwaitAbsent, nil)
	}
	f.want(t, "0000000200000000000000"+"0A", AwaitAbsent, nil)
	if files, _ := filepath.Glob(filepath.Join(f.out, "*")); len(files) > 1 {
		t.Errorf("left behind: %v", files)
	}
	f.stop()
	if err := <-f.done; err != nil {
		t.Errorf("feed: %v", err)
	}
	f.want(t, feedName(30), AwaitBroken, nil)
}

func TestFeedAhead(t *testing.T) {
	t.Parallel()
	f := feedOf(filepath.Join(t.TempDir(), "feed"))
	var fetched atomic.Int64
	fetch := f.Fetch
	f.Fetch = func(ctx context.Context, n uint64, room []byte) ([]byte, error) {
		fetched.Add(1)
		return fetch(ctx, n, room)
	}
	x := startFeed(t, f)
	for deadline := time.Now().Add(10 * time.Second); fetched.Load() < int64(f.Ahead) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond)
	if n := fetched.Load(); n < int64(f.Ahead) || n > int64(f.Ahead+f.Jobs) {
		t.Errorf("%d segments were fetched ahead, want about %d", n, f.Ahead)
	}
	for n := uint64(10); n <= 14; n++ {
		x.want(t, feedName(n), AwaitFound, feedBytes(n))
	}
}

func TestFeedFailed(t *testing.T) {
	t.Parallel()
	f := feedOf(filepath.Join(t.TempDir(), "feed"))
	f.Fetch = func(_ context.Context, n uint64, _ []byte) ([]byte, error) {
		if n == 12 {
			return nil, errors.New("the store burns")
		}
		return feedBytes(n), nil
	}
	x := startFeed(t, f)
	if err := <-x.done; err == nil || !strings.Contains(err.Error(), "the store burns") {
		t.Errorf("feed: %v", err)
	}
	code, _, log := x.ask(t, feedName(30))
	if code != AwaitBroken || !strings.Contains(log, "the store burns") {
		t.Errorf("code %d: %s", code, log)
	}
	// the next attempt begins anew
	y := startFeed(t, feedOf(f.Dir))
	y.want(t, feedName(10), AwaitFound, feedBytes(10))
	y.want(t, feedName(12), AwaitFound, feedBytes(12))
}

func TestFeedKilled(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "feed")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(feedOf(dir).WAL, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "feed", dir)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &feeding{Feed: feedOf(dir), out: t.TempDir()}
	f.want(t, feedName(10), AwaitFound, feedBytes(10))
	f.want(t, "00000009.history", AwaitAbsent, nil)
	kill(t, cmd)
	if t.Failed() {
		t.Logf("the feed: %s", said.String())
	}
	if code, _, log := f.ask(t, feedName(59)); code != AwaitBroken || !strings.Contains(log, "died") {
		t.Errorf("code %d: %s", code, log)
	}
}

func TestFeedTwice(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "feed")
	x := startFeed(t, feedOf(dir))
	x.want(t, feedName(10), AwaitFound, feedBytes(10))
	if err := feedOf(dir).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second feed: %v", err)
	}
	x.want(t, feedName(11), AwaitFound, feedBytes(11))
}

func TestCommand(t *testing.T) {
	f := &Feed{Dir: "/a b/feed"}
	got, err := f.Command("/c d/kbcli", "wal-await")
	const want = `for i in 1 2 3 4 5 6 7 8 9 10; do [ -e '/a b/feed/coming-%f' ] && sleep 0.004 || break; done; ` +
		`[ -f '/a b/feed/%f' ] && case %f in *.history) cp '/a b/feed/%f' "%p" && exit 0;; *) : >'/a b/feed/took-%f' && exit 1;; esac; ` +
		`exec '/c d/kbcli' 'wal-await' '/a b/feed' %f "%p"`
	if err != nil || got != want {
		t.Errorf("command %s: %v", got, err)
	}
	for _, bad := range []string{"/a'b", "/a%b", "/a\nb", `/a\b`} {
		if _, err := f.Command(bad); err == nil {
			t.Errorf("program %q is taken", bad)
		}
		if _, err := (&Feed{Dir: bad}).Command("/kbcli"); err == nil {
			t.Errorf("directory %q is taken", bad)
		}
	}
	for _, name := range []string{"../x", `a\b`} {
		if code, err := Await(t.Context(), t.TempDir(), name, "x"); code != AwaitBroken || err == nil {
			t.Errorf("await %s: %d %v", name, code, err)
		}
	}
}
