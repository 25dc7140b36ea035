// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/bounds"
)

const controlPath = "global/pg_control"

// Config of one backup.
type Config struct {
	Lineage  *repository.Lineage
	Conninfo string
	// DataDirectory is where this process finds the server's data directory;
	// empty asks the server.
	DataDirectory string

	Name    string // of the backup; unique in the lineage
	Manual  bool
	Fast    bool // do not wait for a spread checkpoint
	Workers int  // how many files are read at once, if the bounds allow it

	// Bounds are what it may take of the machine. Bytes a second are the Lineage's: see
	// repository.Lineage.Limited.
	Bounds bounds.Bounds

	// Incremental, if set, has Take read what changed alone.
	Incremental *Incremental

	// WaitWAL blocks until the repository holds all WAL before lsn.
	WaitWAL func(ctx context.Context, tli pg.TimelineID, lsn pg.LSN) error
	// Progress, if set, is called now and then, from several goroutines.
	Progress func(Progress)

	Clock func() time.Time
	Log   *slog.Logger
}

// Progress of a backup. Done counts raw bytes read, Total those to be read; Stored
// those put.
type Progress struct {
	Phase               string // starting, copying, stopping, waiting for WAL, done
	Done, Total, Stored int64
}

// WrongServerError says that the data directory belongs to another server than the
// connection.
type WrongServerError struct {
	DataDirectory string
	Reason        string
}

func (e *WrongServerError) Error() string {
	return fmt.Sprintf("data directory %s is not the connected server's: %s", e.DataDirectory, e.Reason)
}

// Take makes a full or an incremental backup. An interrupted one of the same name is
// taken up. The manifest it returns is stored; its BadPages and ReadAll are warnings for
// the caller to pass on. Backups that an incremental one builds on should not be deleted
// meanwhile: it fails then.
func Take(ctx context.Context, cfg Config) (*repository.Manifest, error) {
	c, err := client.Connect(ctx, cfg.Conninfo)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	b, err := begin(ctx, &cfg, c)
	if err != nil {
		return nil, err
	}
	return b.take(ctx)
}

// begin looks whether the server is the one whose history the lineage holds, and the
// data directory the server's.
func begin(ctx context.Context, cfg *Config, c *client.Conn) (*backup, error) {
	server, err := c.Identify(ctx)
	if err != nil {
		return nil, err
	}
	if err := cfg.Lineage.Check(server.SystemID, server.Version.Major(), server.SegmentSize); err != nil {
		return nil, err
	}
	if cfg.DataDirectory == "" {
		cfg.DataDirectory = server.DataDirectory
	}
	control, _, err := readControl(cfg.DataDirectory)
	if err != nil {
		return nil, err
	}
	if control.SystemID != server.SystemID {
		return nil, &WrongServerError{cfg.DataDirectory, fmt.Sprintf("its system identifier is %s, the server's %s", control.SystemID, server.SystemID)}
	}
	if control.BlockSize != pg.BlockSize || control.RelSegBlocks != pg.RelSegBlocks {
		return nil, fmt.Errorf("the server was built with pages of %d bytes and relation files of %d pages; only %d and %d are supported",
			control.BlockSize, control.RelSegBlocks, pg.BlockSize, pg.RelSegBlocks)
	}
	super, err := superuser(ctx, c)
	if err != nil {
		return nil, err
	}
	return &backup{cfg: cfg, conn: c, server: server, superuser: super, control: control}, nil
}

type backup struct {
	cfg     *Config
	conn    *client.Conn
	server  client.Server
	control pg.ControlFile

	superuser string // of the server; empty for none
	copier    *copier
	total     int64

	// of an incremental backup
	base    *base    // nil: there is none that can be used
	changed *changed // since the base; nil: not known
	readAll string   // why not
}

func (b *backup) take(ctx context.Context) (*repository.Manifest, error) {
	earlier, packs, err := b.leftovers(ctx)
	if err != nil {
		return nil, err
	}
	b.report("starting")
	start, err := b.conn.BackupStart(ctx, b.cfg.Name, b.cfg.Fast)
	if err != nil {
		return nil, fmt.Errorf("start backup: %w", err)
	}
	if err := b.differences(ctx, start); err != nil {
		return nil, err
	}
	entries, err := b.walk()
	if err != nil {
		return nil, err
	}
	if err := b.copyFiles(ctx, entries, start.LSN, b.control.DataChecksums(), earlier, packs); err != nil {
		return nil, err
	}
	control, raw, err := readControl(b.cfg.DataDirectory)
	if err != nil {
		return nil, err
	}
	b.control = control
	if err := b.copyControl(ctx, raw); err != nil {
		return nil, err
	}
	e, err := b.stop(ctx, start)
	if err != nil {
		return nil, err
	}
	if err := b.waitWAL(ctx, e); err != nil {
		return nil, err
	}
	m, err := b.manifest(e)
	if err != nil {
		return nil, err
	}
	files, err := b.copied(m)
	if err != nil {
		return nil, err
	}
	if err := b.tidy(ctx, m, files, packs > 0); err != nil {
		return nil, err
	}
	if err := b.list(ctx, m, files); err != nil {
		return nil, err
	}
	b.report("done")
	return m, nil
}

// walk lists what is to be backed up.
func (b *backup) walk() ([]entry, error) {
	w := &walker{catalogDir: fmt.Sprintf("PG_%d_%d", b.server.Version.Major(), b.control.CatalogVersion)}
	if err := w.walk(b.cfg.DataDirectory); err != nil {
		return nil, err
	}
	for _, p := range w.skippedOdd {
		b.cfg.Log.Warn("left out of the backup: neither a file nor a directory", "path", p)
	}
	return w.entries, nil
}

// copyFiles stores everything but the control file. start is where the backup's WAL
// begins, verify whether pages have checksums, earlier and packs are what leftovers found.
func (b *backup) copyFiles(ctx context.Context, entries []entry, start pg.LSN, verify bool, earlier map[frameID]stored, packs uint32) error {
	shares := b.divide(entries)
	list := tasks(entries, shares)
	for i := range list {
		b.total += list[i].size
	}
	use, err := sizes(b.cfg, entries, b.total, b.base)
	if err != nil {
		return err
	}
	workers := use.workers
	c := newCopier(b.cfg, entries, use)
	c.keep(b.base, shares)
	c.start, c.verify, c.exact = start, verify, b.conn == nil
	c.earlier, c.total = earlier, b.total
	c.packs.Store(packs)
	b.copier = c
	b.report("copying")
	return c.run(ctx, list, workers)
}

// ended is how a backup began and ended on the server.
type ended struct {
	start client.BackupStart
	stop  client.BackupStop
	label pg.BackupLabel
}

// stop ends the backup on the server.
func (b *backup) stop(ctx context.Context, start client.BackupStart) (ended, error) {
	b.report("stopping")
	stop, err := b.conn.BackupStop(ctx)
	if err != nil {
		return ended{}, fmt.Errorf("stop backup: %w", err)
	}
	label, err := pg.ParseBackupLabel(stop.Label)
	if err != nil {
		return ended{}, fmt.Errorf("stop backup: %w", err)
	}
	return ended{start, stop, label}, nil
}

// waitWAL waits until the repository holds the WAL that makes the backup consistent.
func (b *backup) waitWAL(ctx context.Context, e ended) error {
	b.report("waiting for WAL")
	if err := b.cfg.WaitWAL(ctx, e.label.Timeline, e.stop.LSN); err != nil {
		return fmt.Errorf("wait for the WAL of the backup: %w", err)
	}
	return b.cfg.Lineage.Covers(ctx, e.label.Timeline, e.label.Start, e.stop.LSN)
}

// leftovers finds the frames that an interrupted try of this backup stored, and the
// highest number of its packs. A sealed repository that cannot be read here keeps
// nothing to take up.
func (b *backup) leftovers(ctx context.Context) (map[frameID]stored, uint32, error) {
	found := map[frameID]stored{}
	l := b.cfg.Lineage
	numbers, _, err := l.Packs(ctx, b.cfg.Name)
	if err != nil || len(numbers) == 0 {
		return found, 0, err
	}
	last := numbers[len(numbers)-1]
	if !l.Repository().Readable() {
		return found, last, nil
	}
	b.cfg.Log.Info("taking up an interrupted backup", "backup", b.cfg.Name, "packs", len(numbers))
	for _, n := range numbers {
		ref := repository.PackRef{Backup: b.cfg.Name, Number: n}
		table, err := l.PackTable(ctx, ref)
		var corrupt *repository.CorruptError
		if errors.As(err, &corrupt) {
			b.cfg.Log.Warn("a pack of the interrupted backup is not used", "error", err)
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		for _, f := range table {
			found[frameID{f.Raw, f.Sum}] = stored{ref, f}
		}
	}
	return found, last, nil
}

// readControl reads pg_control, which the server may be writing.
func readControl(dir string) (pg.ControlFile, []byte, error) {
	var last error
	for range 5 {
		raw, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(controlPath)))
		if err != nil {
			return pg.ControlFile{}, nil, fmt.Errorf("read control file: %w", err)
		}
		control, err := pg.ParseControlFile(raw)
		if err == nil {
			return control, raw, nil
		}
		last = err
		if !errors.Is(err, pg.ErrControlFileCRC) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return pg.ControlFile{}, nil, fmt.Errorf("read control file: %w", last)
}

// copyControl stores pg_control after everything else: of a standby it tells how far
// the copied files may reach.
func (b *backup) copyControl(ctx context.Context, raw []byte) error {
	c := b.copier
	i, ok := slices.BinarySearchFunc(c.entries, controlPath, func(e entry, p string) int { return bytes.Compare([]byte(e.Path), []byte(p)) })
	if !ok {
		return fmt.Errorf("read data directory: %s is missing", controlPath)
	}
	c.entries[i].Size = int64(len(raw))
	w := &worker{c: c, buf: slices.Grow(append([]byte(nil), raw...), repository.FrameSize)}
	w.inside = []held{{entry: i, length: len(raw)}}
	if err := w.frame(ctx); err != nil {
		return err
	}
	c.upctx = ctx
	w.put()
	return c.uploads.Wait()
}

// manifest says what the server told of the backup; its files are yet to be told.
func (b *backup) manifest(e ended) (*repository.Manifest, error) {
	m := &repository.Manifest{
		Name: b.cfg.Name, Type: repository.TypeFull, Manual: b.cfg.Manual, Version: int(b.server.Version),
		Timeline: e.label.Timeline, StartLSN: e.label.Start, StopLSN: e.stop.LSN,
		StartTime: e.start.Time.UTC(), StopTime: e.stop.Time.UTC(),
		Label: e.label.Raw, TablespaceMap: e.stop.TablespaceMap,
		Checksums: b.control.DataChecksums(), Superuser: b.superuser,
		Settings: repository.Settings{
			MaxConnections: b.control.MaxConnections, MaxWorkerProcesses: b.control.MaxWorkers,
			MaxWalSenders: b.control.MaxWALSenders, MaxPreparedXacts: b.control.MaxPreparedXact,
			MaxLocksPerXact: b.control.MaxLocksPerXact,
			CatalogVersion:  int(b.control.CatalogVersion), ControlVersion: int(b.control.ControlVersion),
			DataPageChecksumVer: int(b.control.ChecksumVersion),
		},
	}
	if in := b.cfg.Incremental; in != nil {
		m.Type, m.ReadAll = repository.TypeIncremental, b.readAll
		if b.base != nil {
			m.Base = b.base.m.Name
		}
	}
	spaces, err := pg.ParseTablespaceMap(b.server.Version.Major(), e.stop.TablespaceMap)
	if err != nil {
		return nil, err
	}
	for _, t := range spaces {
		m.Tablespaces = append(m.Tablespaces, repository.Tablespace{Oid: t.OID, Location: t.Path})
	}
	return m, nil
}

// copied tells in the manifest what was stored, and lists it.
func (b *backup) copied(m *repository.Manifest) (*repository.Files, error) {
	c := b.copier
	files, err := c.files()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(c.bad, func(x, y repository.BadPage) int {
		if x.Path != y.Path {
			return bytes.Compare([]byte(x.Path), []byte(y.Path))
		}
		return int(x.Block) - int(y.Block)
	})
	m.NewBytes, m.Stored, m.BadPages = c.fresh, c.stored, c.bad
	m.Uses = uses(m.Name, files)
	count(m, files)
	return files, nil
}

// count tells in the manifest how much a list of files is.
func count(m *repository.Manifest, files *repository.Files) {
	m.Files, m.DataBytes = 0, 0
	for i := range files.Files {
		if f := &files.Files[i]; f.Kind == repository.RegularFile {
			m.Files++
			m.DataBytes += f.Size
		}
	}
}

func (b *backup) report(phase string) {
	if b.cfg.Progress != nil {
		p := Progress{Phase: phase, Total: b.total}
		if b.copier != nil {
			p.Done, p.Stored = b.copier.counts()
		}
		b.cfg.Progress(p)
	}
}

func (c *copier) counts() (done, stored int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.progress.Load(), c.stored
}

// report tells the progress of copying, about every frame.
func (c *copier) report() {
	if c.cfg.Progress != nil {
		done, stored := c.counts()
		c.cfg.Progress(Progress{Phase: "copying", Done: done, Total: c.total, Stored: stored})
	}
}
