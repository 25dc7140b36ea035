// SPDX-License-Identifier: Apache-2.0

package pg_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
)

const incrementalLabel = `START WAL LOCATION: 1/6000028 (file 000000030000000100000006)
CHECKPOINT LOCATION: 1/6000080
BACKUP METHOD: streamed
BACKUP FROM: standby
START TIME: 2026-11-22 20:00:00 CET
LABEL: night: shift
START TIMELINE: 3
INCREMENTAL FROM LSN: 0/2000028
INCREMENTAL FROM TLI: 2
`

func TestParseBackupLabel(t *testing.T) {
	got, err := pg.ParseBackupLabel([]byte(incrementalLabel))
	if err != nil {
		t.Fatal(err)
	}
	want := pg.BackupLabel{
		Start: 0x1_06000028, StartSegment: "000000030000000100000006", Checkpoint: 0x1_06000080,
		Method: "streamed", From: "standby", StartTime: "2026-11-22 20:00:00 CET", Label: "night: shift", Timeline: 3,
		IncrementalFrom: 0x2000028, IncrementalFromTimeline: 2, Raw: []byte(incrementalLabel),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !got.FromStandby() {
		t.Error("not from a standby")
	}
	short, err := pg.ParseBackupLabel([]byte("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nLABEL: \nNEW WORD: x\n"))
	if err != nil || short.Timeline != 1 || short.Label != "" || short.FromStandby() {
		t.Errorf("%+v, %v", short, err)
	}
}

func TestParseBackupLabelRefuses(t *testing.T) {
	for name, edit := range map[string][2]string{
		"no start":                 {"START WAL LOCATION", "START"},
		"no checkpoint":            {"CHECKPOINT LOCATION", "CHECKPOINT"},
		"bad start":                {"1/6000028 (", "1-6000028 ("},
		"no segment":               {" (file 000000030000000100000006)", ""},
		"segment in lower case":    {"000000030000000100000006", "0000000300000001000000a6"},
		"segment too short":        {"000000030000000100000006", "00000003000000010000000"},
		"segment of timeline 0":    {"000000030000000100000006", "000000000000000100000006"},
		"segment not closed":       {"06)", "06"},
		"bad checkpoint":           {"1/6000080", "zero"},
		"checkpoint before start":  {"1/6000080", "1/6000020"},
		"another timeline":         {"TIMELINE: 3", "TIMELINE: 4"},
		"timeline 0":               {"TIMELINE: 3", "TIMELINE: 0"},
		"a name with a line of it": {"night: shift", "x\nSTART TIMELINE: 3"},
		"half an incremental":      {"INCREMENTAL FROM TLI: 2\n", ""},
		"bad incremental":          {"FROM TLI: 2", "FROM TLI: two"},
	} {
		text := strings.Replace(incrementalLabel, edit[0], edit[1], 1)
		if text == incrementalLabel {
			t.Fatalf("%s changes nothing", name)
		}
		if got, err := pg.ParseBackupLabel([]byte(text)); err == nil {
			t.Errorf("%s: reads as %+v, want an error", name, got)
		}
	}
}

func TestTablespaceMap(t *testing.T) {
	m := pg.TablespaceMap{{16384, "/data/a b"}, {16385, "/data/line\nbreak\r"}, {16386, `/data/back\slash`}, {4294967295, "/data/\xff"}}
	for _, c := range []struct {
		major int
		text  string
	}{
		{13, "16384 /data/a b\n16385 /data/line\\\nbreak\\\r\n16386 /data/back\\slash\n4294967295 /data/\xff\n"},
		{14, "16384 /data/a b\n16385 /data/line\\\nbreak\\\r\n16386 /data/back\\\\slash\n4294967295 /data/\xff\n"},
	} {
		if diff := cmp.Diff(c.text, string(m.Bytes(c.major))); diff != "" {
			t.Errorf("%d: %s", c.major, diff)
		}
		got, err := pg.ParseTablespaceMap(c.major, []byte(c.text))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%d: %s", c.major, diff)
		}
	}
	for _, text := range []string{"16384 /data", "16384\n", "x /data\n", "0 /data\n", "4294967296 /data\n", " 16384 /data\n", "16384 \n", "16384 /da\x00ta\n", "16384 /data\\\n"} {
		if got, err := pg.ParseTablespaceMap(18, []byte(text)); err == nil {
			t.Errorf("%q reads as %v, want an error", text, got)
		}
	}
}

// What servers write about a backup of odd tablespaces, with an odd name.
func TestBackupFilesOfServers(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := initdb(t, major)
			conn := s.start(t)
			var want pg.TablespaceMap
			for i, name := range []string{`back\slash`, "line\nbreak", "plain", "space d"} {
				dir := filepath.Join(newDir(t), name)
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if a := asPostgres(t); a != nil {
					if err := os.Chown(dir, int(a.Credential.Uid), int(a.Credential.Gid)); err != nil {
						t.Fatal(err)
					}
				}
				query(t, conn, fmt.Sprintf("create tablespace s%d location '%s'", i, dir))
				var oid uint32
				fmt.Sscan(query(t, conn, fmt.Sprintf("select oid from pg_tablespace where spcname = 's%d'", i))[0][0], &oid)
				want = append(want, pg.TablespaceLink{OID: pg.Oid(oid), Path: dir})
			}
			begin, end := "pg_backup_start('odd: name', true)", "pg_backup_stop(false)"
			if major < 15 {
				begin, end = "pg_start_backup('odd: name', true, false)", "pg_stop_backup(false, false)"
			}
			start := query(t, conn, "select "+begin)[0][0]
			files := query(t, conn, "select labelfile, spcmapfile from "+end)[0]
			l, err := pg.ParseBackupLabel([]byte(files[0]))
			if err != nil {
				t.Fatal(err)
			}
			if l.Start.String() != start || l.Label != "odd: name" || l.Timeline != 1 || l.FromStandby() || string(l.Raw) != files[0] {
				t.Errorf("started at %s, label %+v", start, l)
			}
			m, err := pg.ParseTablespaceMap(major, []byte(files[1]))
			if err != nil {
				t.Fatal(err)
			}
			byOid := func(m pg.TablespaceMap) map[pg.Oid]string {
				paths := map[pg.Oid]string{}
				for _, l := range m {
					paths[l.OID] = l.Path
				}
				return paths
			}
			if diff := cmp.Diff(byOid(want), byOid(m)); diff != "" {
				t.Error(diff)
			}
			// 13 writes no line break after the last line, and the fields trimmed of it.
			if got := string(m.Bytes(major)); strings.TrimSuffix(got, "\n") != strings.TrimSuffix(files[1], "\n") {
				t.Errorf("wrote %q, the server %q", got, files[1])
			}
			conn.Close(t.Context())
			s.stop()
		})
	}
}

func FuzzBackupLabel(f *testing.F) {
	f.Add([]byte(incrementalLabel))
	f.Add([]byte("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := pg.ParseBackupLabel(data)
		if err != nil {
			return
		}
		if string(l.Raw) != string(data) {
			t.Error("the bytes were not kept")
		}
		text := fmt.Sprintf("START WAL LOCATION: %s (file %s)\nCHECKPOINT LOCATION: %s\nBACKUP METHOD: %s\nBACKUP FROM: %s\nSTART TIME: %s\nLABEL: %s\nSTART TIMELINE: %d\n",
			l.Start, l.StartSegment, l.Checkpoint, l.Method, l.From, l.StartTime, l.Label, l.Timeline)
		if l.IncrementalFrom != 0 {
			text += fmt.Sprintf("INCREMENTAL FROM LSN: %s\nINCREMENTAL FROM TLI: %d\n", l.IncrementalFrom, l.IncrementalFromTimeline)
		}
		again, err := pg.ParseBackupLabel([]byte(text))
		if err != nil {
			t.Fatalf("%q, written as %q: %v", data, text, err)
		}
		again.Raw = l.Raw
		if diff := cmp.Diff(l, again); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzTablespaceMap(f *testing.F) {
	f.Add(14, []byte("16384 /data/a b\n16385 /data/line\\\nbreak\\\r\n16386 /data/back\\\\slash\n"))
	f.Add(13, []byte("16386 /data/back\\slash\n"))
	f.Fuzz(func(t *testing.T, major int, data []byte) {
		m, err := pg.ParseTablespaceMap(major, data)
		if err != nil {
			return
		}
		again, err := pg.ParseTablespaceMap(18, m.Bytes(18))
		if err != nil {
			t.Fatalf("%q, written as %q: %v", data, m.Bytes(18), err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Error(diff)
		}
	})
}
