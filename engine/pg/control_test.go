// SPDX-License-Identifier: Apache-2.0

package pg_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg"
)

// What a server says about its own control file, in the order of described.
const controlSQL = `select system_identifier, pg_control_version, catalog_version_no,
	extract(epoch from pg_control_last_modified)::bigint,
	checkpoint_lsn, redo_lsn, timeline_id, prev_timeline_id, extract(epoch from checkpoint_time)::bigint,
	min_recovery_end_lsn, min_recovery_end_timeline, backup_start_lsn, backup_end_lsn, end_of_backup_record_required,
	database_block_size, blocks_per_segment, wal_block_size, bytes_per_wal_segment, data_page_checksum_version
	from pg_control_system(), pg_control_checkpoint(), pg_control_recovery(), pg_control_init()`

func described(c pg.ControlFile) []string {
	end := "f"
	if c.BackupEndRequired {
		end = "t"
	}
	var s []string
	for _, v := range []any{
		c.SystemID, c.ControlVersion, c.CatalogVersion, c.Modified.Unix(),
		c.Checkpoint, c.Redo, c.Timeline, c.PrevTimeline, c.CheckpointTime.Unix(),
		c.MinRecoveryPoint, c.MinRecoveryPointTimeline, c.BackupStartPoint, c.BackupEndPoint, end,
		c.BlockSize, c.RelSegBlocks, c.WALBlockSize, uint32(c.SegmentSize), c.ChecksumVersion,
	} {
		s = append(s, fmt.Sprint(v))
	}
	return s
}

// agree compares our reading of a running server's control file with its own,
// between two of its writes.
func agree(t *testing.T, conn *pgconn.PgConn, dir string) pg.ControlFile {
	t.Helper()
	for range 50 {
		before := read(t, dir, "global", "pg_control")
		said := query(t, conn, controlSQL)[0]
		if !bytes.Equal(before, read(t, dir, "global", "pg_control")) {
			continue
		}
		c, err := pg.ParseControlFile(before)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(said, described(c)); diff != "" {
			t.Errorf("server, parser: %s", diff)
		}
		return c
	}
	t.Fatal("the control file does not rest")
	panic("unreachable")
}

func TestControlFileOfServers(t *testing.T) {
	for _, c := range []struct {
		major int
		args  []string
		size  pg.SegmentSize
	}{
		{13, nil, 16 << 20},
		{15, []string{"--wal-segsize=1"}, 1 << 20},
		{18, []string{"--wal-segsize=64", "--no-data-checksums"}, 64 << 20},
	} {
		t.Run(fmt.Sprint(c.major), func(t *testing.T) {
			args := c.args
			if c.major == 18 {
				args = args[:1] // initdb -k comes first and cannot be taken back
			}
			s := initdb(t, c.major, args...)
			write(t, []byte("wal_level=logical\nmax_connections=57\nmax_worker_processes=19\nmax_wal_senders=13\nmax_prepared_transactions=7\nmax_locks_per_transaction=91\n"), s.dir, "postgresql.auto.conf")
			conn := s.start(t)
			query(t, conn, "create table t as select generate_series(1, 1000); checkpoint")
			got := agree(t, conn, s.dir)
			want := pg.ControlFile{
				Major: c.major, State: pg.StateInProduction, WALLevel: pg.WALLogical, MaxConnections: 57, MaxWorkers: 19,
				MaxWALSenders: 13, MaxPreparedXact: 7, MaxLocksPerXact: 91, SegmentSize: c.size, ChecksumVersion: 1,
			}
			rest := got
			rest.SystemID, rest.ControlVersion, rest.CatalogVersion = 0, 0, 0
			rest.Modified, rest.CheckpointTime = time.Time{}, time.Time{}
			rest.Checkpoint, rest.Redo, rest.Timeline, rest.PrevTimeline = 0, 0, 0, 0
			rest.BlockSize, rest.RelSegBlocks, rest.WALBlockSize = 0, 0, 0
			if diff := cmp.Diff(want, rest); diff != "" {
				t.Error(diff)
			}
			conn.Close(t.Context())
			s.stop()
			stopped, err := pg.ParseControlFile(read(t, s.dir, "global", "pg_control"))
			if err != nil || stopped.State != pg.StateShutDown {
				t.Errorf("stopped: %v, %v", stopped.State, err)
			}
			if program := filepath.Join(s.bin, "pg_controldata"); exists(program) {
				compareControldata(t, stopped, run(t, program, s.dir))
			}
		})
	}
}

// compareControldata holds c against pg_controldata's own words.
func compareControldata(t *testing.T, c pg.ControlFile, out []byte) {
	t.Helper()
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(line, ":")
		said[key] = strings.TrimSpace(value)
	}
	for key, value := range map[string]any{
		"pg_control version number":         c.ControlVersion,
		"Catalog version number":            c.CatalogVersion,
		"Database system identifier":        c.SystemID,
		"Database cluster state":            c.State,
		"Latest checkpoint location":        c.Checkpoint,
		"Latest checkpoint's REDO location": c.Redo,
		"Latest checkpoint's TimeLineID":    c.Timeline,
		"wal_level setting":                 c.WALLevel,
		"max_connections setting":           c.MaxConnections,
		"max_worker_processes setting":      c.MaxWorkers,
		"max_wal_senders setting":           c.MaxWALSenders,
		"max_prepared_xacts setting":        c.MaxPreparedXact,
		"max_locks_per_xact setting":        c.MaxLocksPerXact,
		"Bytes per WAL segment":             uint32(c.SegmentSize),
		"Data page checksum version":        c.ChecksumVersion,
	} {
		if got := fmt.Sprint(value); got != said[key] {
			t.Errorf("%s: %s, pg_controldata says %q", key, got, said[key])
		}
	}
}

func TestParseControlFileRefuses(t *testing.T) {
	good := madeControlFile(202506291, 1800, 292)
	if _, err := pg.ParseControlFile(good); err != nil {
		t.Fatal(err)
	}
	change := func(at int, v uint32, sealed bool) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		if sealed {
			binary.LittleEndian.PutUint32(b[292:], crc32.Checksum(b[:292], crc32.MakeTable(crc32.Castagnoli)))
		}
		return b
	}
	for name, data := range map[string][]byte{
		"nothing":              nil,
		"a header":             good[:16],
		"no CRC":               good[:295],
		"zeros":                make([]byte, pg.ControlFileSize),
		"PostgreSQL 12":        change(12, 201909212, true),
		"the wrong release":    change(8, 1300, true),
		"other byte order":     change(8, 0x08070000, true),
		"a damaged checkpoint": change(32, 1, false),
		"4 KiB pages":          change(216, 4096, true),
		"small files":          change(220, 1024, true),
		"32 KiB WAL pages":     change(224, 32768, true),
		"odd WAL segments":     change(228, 3<<20, true),
		"4-byte alignment":     change(204, 4, true),
		"timeline 0":           change(48, 0, true),
	} {
		if c, err := pg.ParseControlFile(data); err == nil {
			t.Errorf("%s: reads as %+v, want an error", name, c)
		}
		if _, err := pg.InvalidateCheckpoint(data); err == nil {
			t.Errorf("%s: can be invalidated", name)
		}
	}
	if _, err := pg.ParseControlFile(change(32, 1, false)); !errors.Is(err, pg.ErrControlFileCRC) {
		t.Errorf("damage gives %v, want ErrControlFileCRC", err)
	}
}

func TestControlWords(t *testing.T) {
	got := []string{pg.DBState(6).String(), pg.DBState(7).String(), pg.WALMinimal.String(), pg.WALReplica.String(), pg.WALLevel(3).String()}
	want := []string{"in production", "unrecognized status code 7", "minimal", "replica", "unrecognized wal_level 3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func madeControlFile(catalog, control uint32, crcAt int) []byte {
	b := make([]byte, pg.ControlFileSize)
	for at, v := range map[int]uint32{8: control, 12: catalog, 16: 1, 32: 0x2000060, 40: 0x2000028, 48: 1, 204: 8, 216: 8192, 220: 131072, 224: 8192, 228: 16 << 20} {
		binary.LittleEndian.PutUint32(b[at:], v)
	}
	binary.LittleEndian.PutUint32(b[crcAt:], crc32.Checksum(b[:crcAt], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func FuzzControlFile(f *testing.F) {
	for catalog, control := range map[uint32]uint32{202007201: 1300, 202107181: 1300, 202209061: 1300, 202307071: 1300, 202406281: 1700} {
		f.Add(madeControlFile(catalog, control, 288)[:300], true)
	}
	f.Add(madeControlFile(202506291, 1800, 292)[:300], true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		data = bytes.Clone(data)
		for _, at := range []int{288, 292} { // let mutations past the CRC of one layout or the other
			if seal && len(data) >= at+4 {
				binary.LittleEndian.PutUint32(data[at:], crc32.Checksum(data[:at], crc32.MakeTable(crc32.Castagnoli)))
			}
		}
		c, err := pg.ParseControlFile(data)
		if err != nil {
			return
		}
		out, err := pg.InvalidateCheckpoint(data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pg.ParseControlFile(out)
		if err != nil {
			t.Fatal(err)
		}
		c.Checkpoint, c.Redo = 0x28, 0x28
		if diff := cmp.Diff(c, got); diff != "" {
			t.Error(diff)
		}
	})
}

// A directory with an invalidated control file does not start without its
// backup label, is none the worse for the attempt, and starts with it.
func TestInvalidateCheckpoint(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := initdb(t, major)
			conn := s.start(t)
			query(t, conn, "create table t as select generate_series(1, 1000) i")
			begin, end := "pg_backup_start('x', true)", "pg_backup_stop(false)"
			if major < 15 {
				begin, end = "pg_start_backup('x', true, false)", "pg_stop_backup(false, false)"
			}
			query(t, conn, "select "+begin)
			copied := filepath.Join(s.sock, "copy")
			copyDir(t, s.dir, copied)
			query(t, conn, "insert into t select 1 from generate_series(1, 500)")
			label := []byte(query(t, conn, "select labelfile from "+end)[0][0])
			if err := os.RemoveAll(filepath.Join(copied, "pg_wal")); err != nil {
				t.Fatal(err)
			}
			copyDir(t, filepath.Join(s.dir, "pg_wal"), filepath.Join(copied, "pg_wal"))
			if _, err := pg.ParseBackupLabel(label); err != nil {
				t.Error(err)
			}
			conn.Close(t.Context())
			s.stop()

			cut, err := pg.InvalidateCheckpoint(read(t, copied, "global", "pg_control"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, cut, copied, "global", "pg_control")
			bare := &server{bin: s.bin, dir: copied, sock: s.sock}
			bare.launch(t)
			select {
			case <-bare.done:
			case <-time.After(time.Minute):
				t.Fatal("the server runs without its backup label")
			}
			if !strings.Contains(bare.log.String(), "could not locate a valid checkpoint record") {
				t.Errorf("the server without a label says %s", bare.log.String())
			}

			write(t, label, copied, "backup_label")
			labelled := &server{bin: s.bin, dir: copied, sock: s.sock}
			conn = labelled.start(t)
			if got := query(t, conn, "select count(*) from t")[0][0]; got != "1500" {
				t.Errorf("the restored server has %s rows, want 1500", got)
			}
			agree(t, conn, copied)
			conn.Close(t.Context())
			labelled.stop()
		})
	}
}

// A standby's control file has a recovery part.
func TestControlFileOfStandby(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		s := initdb(t, major)
		write(t, nil, s.dir, "standby.signal")
		write(t, []byte("restore_command='false'\n"), s.dir, "postgresql.auto.conf")
		conn := s.start(t)
		c := agree(t, conn, s.dir)
		if c.State != pg.StateInArchiveRecovery || c.MinRecoveryPoint == 0 || c.MinRecoveryPointTimeline != 1 {
			t.Errorf("%d: %v, minimum recovery point %s on %d", major, c.State, c.MinRecoveryPoint, c.MinRecoveryPointTimeline)
		}
		conn.Close(t.Context())
		s.stop()
	}
}

// copyDir copies a data directory without what belongs to its running server.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	own := asPostgres(t)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			if err := os.Mkdir(target, 0o700); err != nil {
				return err
			}
			if own != nil {
				return os.Chown(target, int(own.Credential.Uid), int(own.Credential.Gid))
			}
		case d.Type().IsRegular() && d.Name() != "postmaster.pid":
			write(t, read(t, path), target)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
