// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/internal/childproc"
)

// feedAhead is how many segments of WAL wait beside the data directory.
const feedAhead = 24

// Recovery says how an unpacked directory is recovered.
type Recovery struct {
	Into
	BinDir string // of the server's own major version
	// Program runs archive.Await when it is called as archive.Feed.Command
	// describes, with Args first. A server's user who may not run it where it is gets a copy.
	Program string
	Args    []string
	// Scratch is an empty directory on the data directory's file system.
	Scratch string
	// Sockets is a directory for the server's socket, with a path short enough for one,
	// that does not exist; empty is Scratch, if its path is short enough.
	Sockets string
	Conf    string // a postgresql.conf to use if the directory has none
	// Replayed, if set, is told how many segments were handed to the server.
	Replayed func(segments int)
	Clock    func() time.Time // for Reached.Replay; nil: that is not measured
}

// Reached is what a recovery came to.
type Reached struct {
	LSN      pg.LSN // where the new timeline begins
	Timeline pg.TimelineID
	// LastCommit is when the last transaction that was replayed was committed;
	// zero if none was.
	LastCommit time.Time
	// Replay is how long the server took from the first WAL that it was handed until it
	// let anyone in.
	Replay time.Duration
	// Superuser is a role of the restored cluster that is one and may log in.
	Superuser string
	Notes     []string // what was changed in the restored cluster, for people

	kept, lost xactFate // of the commits beside the stop
}

// RecoveryError says why the server did not recover, in its own words.
type RecoveryError struct {
	Log string // its last lines
}

func (e *RecoveryError) Error() string {
	if line := fatalLine(e.Log); line != "" {
		return "recovery failed: " + line
	}
	return "recovery failed"
}

// fatalLine picks what the server said when it gave up.
func fatalLine(log string) string {
	last := ""
	for line := range strings.Lines(log) {
		for _, word := range []string{"FATAL:", "PANIC:"} {
			if _, text, ok := strings.Cut(line, word); ok {
				last = strings.TrimSpace(text)
			}
		}
	}
	return last
}

// Recover replays WAL up to the plan's stop, ends recovery, and compares what was
// reached with what was planned. After a nil error the directory holds a server that
// was shut down in order, on a timeline of its own, and is durable.
func (p *Plan) Recover(ctx context.Context, r Recovery) (*Reached, error) {
	s := &recoverer{plan: p, r: r}
	var err error
	if s.feed, err = p.feed(ctx, r, &s.begun); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("prepare recovery: %w", err)
	}
	if err := s.moveTablespaces(ctx); err != nil {
		return nil, fmt.Errorf("prepare recovery: %w", err)
	}
	fctx, stop := context.WithCancel(ctx)
	g, gctx := errgroup.WithContext(fctx)
	g.Go(func() error { return s.feed.Run(gctx) })
	var reached *Reached
	g.Go(func() error {
		defer stop()
		var err error
		reached, err = s.run(ctx)
		return err
	})
	err = g.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := s.cleanUp(reached); err != nil {
		return nil, err
	}
	if err := s.settleTablespaces(); err != nil {
		return nil, fmt.Errorf("clean up after recovery: %w", err)
	}
	if err := p.judge(reached); err != nil {
		return reached, err
	}
	return reached, syncFilesystem(r.DataDirectory)
}

// feed makes the Feed of the plan's WAL, which notes when replay began.
func (p *Plan) feed(ctx context.Context, r Recovery, begun *atomic.Pointer[time.Time]) (*archive.Feed, error) {
	size := p.lineage.Info().SegmentSize
	jobs, err := feeders(r.Bounds, r.Jobs, int64(size))
	if err != nil {
		return nil, err
	}
	lineage := p.lineage.Limited(0, r.Bounds.Download)
	f := &archive.Feed{
		Dir: filepath.Join(r.Scratch, "feed"), WAL: filepath.Join(r.DataDirectory, "pg_wal"), Size: size,
		First: size.Number(p.manifest.StartLSN), Last: lastSegment(size, p.ReadLSN),
		Ahead: feedAhead, Jobs: jobs,
		Segment: p.path.Until(p.StopTimeline).Segment,
		Fetch: func(ctx context.Context, n uint64, room []byte) ([]byte, error) {
			b, err := catalog.ReadSegment(ctx, lineage, p.path, n, room)
			if err == nil && len(b) == 0 {
				err = fmt.Errorf("it is missing from the repository: %w", blob.ErrNotExist)
			}
			p.patch(n, b)
			if pad := int(size) - len(b); pad > 0 {
				b = append(b, make([]byte, pad)...)
			}
			return b, err
		},
		Histories: map[string][]byte{},
	}
	if r.UID >= 0 {
		f.Own = func(path string) error { return os.Lchown(path, r.UID, r.GID) }
	}
	first := f.First
	f.Fed = func(n uint64) {
		if r.Clock != nil && begun.Load() == nil {
			now := r.Clock()
			begun.CompareAndSwap(nil, &now)
		}
		if r.Replayed != nil {
			r.Replayed(int(n-first) + 1)
		}
	}
	// all of them, also of other branches: the new timeline is numbered after
	// every one that was ever archived
	tlis, err := p.lineage.Histories(ctx)
	if err != nil {
		return nil, err
	}
	for _, tli := range tlis {
		content, err := p.lineage.History(ctx, tli)
		if err != nil {
			return nil, err
		}
		f.Histories[pg.HistoryFileName(tli)] = content
	}
	return f, nil
}

// lastSegment is the number of the segment that holds the last byte before end. After a
// record that fills its segment, as a switch of segments does, the next one stands behind the
// header of a segment that need not have come yet, and is not read.
func lastSegment(size pg.SegmentSize, end pg.LSN) uint64 {
	start := size.Floor(end)
	if end == start || end == bodyOf(size, start) {
		return size.Number(max(start, 1) - 1)
	}
	return size.Number(end)
}

type recoverer struct {
	plan *Plan
	r    Recovery
	feed *archive.Feed
	log  string

	begun     atomic.Pointer[time.Time] // replay, by the clock
	superuser string                    // whom the server was opened as
	links     []string                  // that lead to them while it recovers
	spaces    map[pg.Oid]bool           // the tablespaces that the recovered server has
}

// hba lets in whoever can reach the socket, which lies in a directory that only the
// server's user can enter.
const hba = "local all all trust\n"

func (s *recoverer) prepare() error {
	if err := s.dir(s.r.Scratch); err != nil {
		return err
	}
	if s.r.Sockets == "" {
		s.r.Sockets = s.r.Scratch
	} else if err := os.Mkdir(s.r.Sockets, 0o700); err != nil {
		return err // another's directory is not entered
	} else if err := s.own(s.r.Sockets); err != nil {
		return err
	}
	s.log = filepath.Join(s.r.Scratch, "recovery.log")
	data := s.r.DataDirectory
	for path, content := range map[string]string{
		filepath.Join(s.r.Scratch, "pg_hba.conf"):   hba,
		filepath.Join(s.r.Scratch, "pg_ident.conf"): "",
		filepath.Join(data, "recovery.signal"):      "",
	} {
		if err := s.file(path, content); err != nil {
			return err
		}
	}
	if err := s.program(); err != nil {
		return err
	}
	conf := filepath.Join(data, "postgresql.conf")
	if _, err := os.Lstat(conf); errors.Is(err, fs.ErrNotExist) {
		return s.file(conf, s.r.Conf)
	} else if err != nil {
		return err
	}
	return nil
}

func (s *recoverer) dir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return s.own(path)
}

func (s *recoverer) file(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return s.own(path)
}

func (s *recoverer) own(path string) error {
	if s.r.UID < 0 {
		return nil
	}
	return os.Lchown(path, s.r.UID, s.r.GID)
}

// settings are given on the command line, where they win over whatever
// configuration came with the backup.
func (s *recoverer) settings() ([]string, error) {
	p := s.plan
	command, err := s.feed.Command(s.r.Program, s.r.Args...)
	if err != nil {
		return nil, err
	}
	set := [][2]string{
		{"restore_command", command},
		// PostgreSQL notes in the new history that this one was left, wherever
		// recovery stopped: it must be the one that the stop is on
		{"recovery_target_timeline", p.StopTimeline.String()},
		{"recovery_target_action", "promote"},
		{"recovery_end_command", ""},
		{"archive_cleanup_command", ""},
		{"primary_conninfo", ""},
		{"primary_slot_name", ""},
		{"hot_standby", "off"},
		// nothing may leave or enter while it recovers
		{"listen_addresses", ""},
		{"unix_socket_directories", s.r.Sockets},
		{"port", "5432"},
		{"hba_file", filepath.Join(s.r.Scratch, "pg_hba.conf")},
		{"ident_file", filepath.Join(s.r.Scratch, "pg_ident.conf")},
		{"ssl", "off"},
		{"archive_mode", "off"},
		{"archive_command", ""},
		{"synchronous_standby_names", ""},
		{"max_logical_replication_workers", "0"},
		{"cron.launch_active_jobs", "off"},
		{"autovacuum", "off"},
		{"logging_collector", "off"},
		{"log_destination", "stderr"},
		{"log_min_messages", "warning"},
		{"lc_messages", "C"},
		// the directory is worth nothing before it is whole, and then it is
		// made durable as one
		{"fsync", "off"},
		{"full_page_writes", "off"},
		{"wal_level", "replica"},
		{"max_connections", strconv.Itoa(max(p.Settings.MaxConnections, 20))},
		{"max_worker_processes", strconv.Itoa(max(p.Settings.MaxWorkerProcesses, 8))},
		{"max_wal_senders", strconv.Itoa(p.Settings.MaxWalSenders)},
		{"max_prepared_transactions", strconv.Itoa(p.Settings.MaxPreparedXacts)},
		{"max_locks_per_transaction", strconv.Itoa(max(p.Settings.MaxLocksPerXact, 64))},
		{"max_wal_size", "8GB"},
		{"checkpoint_timeout", "1h"},
		// what was replayed is removed: kept for new WAL, it would have to be made durable first
		{"wal_recycle", "off"},
		{"recovery_target", ""},
		{"recovery_target_name", ""},
		{"recovery_target_time", ""},
		{"recovery_target_xid", ""},
	}
	if p.Immediate {
		set = append(set, [2]string{"recovery_target_lsn", ""}, [2]string{"recovery_target", "immediate"})
	} else {
		set = append(set, [2]string{"recovery_target_lsn", p.StopLSN.String()}, [2]string{"recovery_target_inclusive", strconv.FormatBool(p.Inclusive)})
	}
	args := []string{"-D", s.r.DataDirectory}
	for _, kv := range set {
		args = append(args, "-c", kv[0]+"="+kv[1])
	}
	return args, nil
}

// run starts the server, waits until it has ended recovery, asks what it reached,
// makes it harmless, and stops it.
func (s *recoverer) run(ctx context.Context) (*Reached, error) {
	args, err := s.settings()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.r.BinDir, "postgres"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = s.r.DataDirectory
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin", "TZ=UTC"}
	if s.r.UID >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.r.UID), Gid: uint32(s.r.GID)}}
	}
	// it must not outlive this process: the next try has the same directory
	exited, err := childproc.Start(cmd, syscall.SIGQUIT)
	if err != nil {
		return nil, fmt.Errorf("start recovery: %w", err)
	}
	reached, err := s.follow(ctx, exited)
	if err == nil {
		err = s.end(cmd, exited)
	} else {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // it may have exited already
		select {
		case <-exited:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
	}
	return reached, err
}

func (s *recoverer) end(cmd *exec.Cmd, exited chan error) error {
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil { // fast shutdown
		return fmt.Errorf("stop the recovered server: %w", err)
	}
	if err := <-exited; err != nil {
		return fmt.Errorf("stop the recovered server: %w", &RecoveryError{s.tail()})
	}
	raw, err := os.ReadFile(filepath.Join(s.r.DataDirectory, filepath.FromSlash(controlPath)))
	if err != nil {
		return err
	}
	control, err := pg.ParseControlFile(raw)
	if err != nil {
		return err
	}
	if control.State != pg.StateShutDown {
		return fmt.Errorf("the recovered server did not shut down in order: its state is %s", control.State)
	}
	return nil
}

// now is zero without a clock.
func (s *recoverer) now() time.Time {
	if s.r.Clock == nil {
		return time.Time{}
	}
	return s.r.Clock()
}

// tail is the end of the server's log.
func (s *recoverer) tail() string {
	f, err := os.Open(s.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 16 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	return string(b)
}

// How often follow looks at the server, and every how many times it asks whatever it sees.
const (
	followPoll   = 20 * time.Millisecond
	followAnyway = 100
)

// follow waits for the end of recovery: only then does the server let anyone in.
func (s *recoverer) follow(ctx context.Context, exited chan error) (*Reached, error) {
	log, err := os.Stat(s.log) // made as the server was started
	if err != nil {
		return nil, err
	}
	began := log.ModTime()
	wctx, stop := context.WithCancel(ctx)
	var g sync.WaitGroup
	defer g.Wait()
	defer stop()
	writing, history := false, s.nextHistory()
	for polls := 1; ; polls++ {
		select {
		case <-exited:
			exited <- nil
			return nil, &RecoveryError{s.tail()}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(followPoll):
		}
		if !writing && written(history) {
			writing = true
			dirs := []string{s.r.DataDirectory}
			if s.r.Tablespaces != "" {
				dirs = append(dirs, s.r.Tablespaces)
			}
			g.Go(func() { writeback(wctx, began, dirs...) })
		}
		// each who asks is a process that the server starts: not before it says that it is open
		if !saysReady(s.r.DataDirectory) && polls%followAnyway != 0 {
			continue
		}
		c, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		if c == nil {
			continue // not yet
		}
		opened := s.now()
		reached, err := s.ask(ctx, c)
		if began := s.begun.Load(); began != nil && reached != nil {
			reached.Replay = opened.Sub(*began)
		}
		cerr := c.Close()
		if err != nil {
			return nil, err
		}
		return reached, cerr
	}
}

// nextHistory is the file that the server writes when it has replayed its last record and
// begins a timeline: it takes the first number after the one that it follows for which it is
// given no history. All of pg_wal is not listed, which may hold thousands of segments.
func (s *recoverer) nextHistory() string {
	for tli := s.plan.StopTimeline + 1; ; tli++ {
		name := pg.HistoryFileName(tli)
		if _, known := s.feed.Histories[name]; !known {
			return filepath.Join(s.r.DataDirectory, "pg_wal", name)
		}
	}
}

func written(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// saysReady reads what the server in data says of itself: the last line of its postmaster.pid
// (LOCK_FILE_LINE_PM_STATUS in src/include/utils/pidfile.h).
func saysReady(data string) bool {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	return err == nil && bytes.HasSuffix(bytes.TrimSpace(b), []byte("\nready"))
}

func (s *recoverer) ask(ctx context.Context, c *client.Conn) (*Reached, error) {
	out := &Reached{}
	var recovering bool
	var last *time.Time
	var tli int64
	err := c.SQL().QueryRow(ctx, `select pg_is_in_recovery(), pg_last_xact_replay_timestamp(), timeline_id from pg_control_checkpoint()`).Scan(&recovering, &last, &tli)
	if err != nil {
		return nil, fmt.Errorf("ask the recovered server: %w", err)
	}
	if last != nil {
		out.LastCommit = last.UTC()
	}
	newest, err := newestHistory(filepath.Join(s.r.DataDirectory, "pg_wal"))
	if err != nil {
		return nil, err
	}
	n := len(newest.Entries)
	if n == 0 || newest.Timeline <= s.plan.StopTimeline {
		return nil, fmt.Errorf("the recovered server began no timeline of its own")
	}
	out.Timeline, out.LSN = newest.Timeline, newest.Entries[n-1].End
	if s.spaces, err = tablespacesOf(ctx, c); err != nil {
		return nil, err
	}
	if err := s.fates(ctx, c, out); err != nil {
		return nil, err
	}
	out.Superuser = s.superuser
	notes, err := quarantine(ctx, c, func(db string) (*client.Conn, error) { return s.connect(ctx, s.superuser, db) })
	if err != nil {
		return nil, err
	}
	out.Notes = notes
	return out, nil
}

// newestHistory reads the history file with the highest number.
func newestHistory(dir string) (pg.History, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return pg.History{}, err
	}
	var newest pg.TimelineID
	for _, e := range entries {
		if tli, err := pg.ParseHistoryFileName(e.Name()); err == nil {
			newest = max(newest, tli)
		}
	}
	if newest == 0 {
		return pg.History{}, nil
	}
	content, err := os.ReadFile(filepath.Join(dir, pg.HistoryFileName(newest)))
	if err != nil {
		return pg.History{}, err
	}
	return pg.ParseHistory(newest, content)
}

// cleanUp removes what recovery needed and a server does not. WAL behind the stop may have
// been fed when the server had removed what there was of that.
func (s *recoverer) cleanUp(reached *Reached) error {
	data := s.r.DataDirectory
	names := []string{"backup_label.old", "tablespace_map.old", "recovery.signal", "backup_manifest"}
	for n := s.feed.Size.Number(reached.LSN) + 1; n <= s.feed.Last; n++ {
		names = append(names, filepath.Join("pg_wal", s.feed.Size.Name(s.feed.Segment(n))))
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(data, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clean up after recovery: %w", err)
		}
	}
	return nil
}
