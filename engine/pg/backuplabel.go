// SPDX-License-Identifier: Apache-2.0

package pg

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// BackupLabel is what backup_label says. PostgreSQL must be given the bytes it
// handed out, so Raw is what is stored and written back; the rest is for
// reading.
type BackupLabel struct {
	Start        LSN    // where recovery from this backup begins
	StartSegment string // name of the WAL segment that holds Start
	Checkpoint   LSN
	Method       string     // "streamed"
	From         string     // "primary" (13: "master") or "standby"
	StartTime    string     // in the server's log_timezone, whose abbreviation need not be unique
	Label        string     // what the backup was started with
	Timeline     TimelineID // of Start

	IncrementalFrom         LSN // 17 and later: where the backup it builds on began; 0 for a full one
	IncrementalFromTimeline TimelineID

	Raw []byte // verbatim
}

// FromStandby tells whether the backup was taken from a standby: then its end
// is the minimum recovery point in its control file, not a record in the WAL.
func (l BackupLabel) FromStandby() bool { return l.From == "standby" }

// ParseBackupLabel reads the label that pg_backup_stop returns and BASE_BACKUP
// sends. Lines it does not know are kept and ignored; a line that comes twice is
// an error, because PostgreSQL would believe the one that a backup's name put
// there.
func ParseBackupLabel(data []byte) (BackupLabel, error) {
	l := BackupLabel{Raw: slices.Clone(data)}
	seen := map[string]bool{}
	for line := range strings.SplitSeq(string(data), "\n") {
		key, value, ok := strings.Cut(line, ": ")
		set := labelLines[key]
		if !ok || set == nil {
			continue
		}
		if seen[key] {
			return BackupLabel{}, fmt.Errorf("backup label: %s comes twice", key)
		}
		seen[key] = true
		if err := set(&l, value); err != nil {
			return BackupLabel{}, fmt.Errorf("backup label: %s: %w", key, err)
		}
	}
	if l.Start == 0 || l.Checkpoint == 0 {
		return BackupLabel{}, errors.New("backup label: no start or checkpoint location")
	}
	if l.Checkpoint < l.Start {
		return BackupLabel{}, fmt.Errorf("backup label: checkpoint %s lies before the start %s", l.Checkpoint, l.Start)
	}
	if (l.IncrementalFrom == 0) != (l.IncrementalFromTimeline == 0) {
		return BackupLabel{}, errors.New("backup label: an incremental start without its timeline or the other way round")
	}
	named, err := parseHex32(l.StartSegment[:8])
	if err != nil || named == 0 {
		return BackupLabel{}, fmt.Errorf("backup label: segment %s has no timeline", l.StartSegment)
	}
	if l.Timeline == 0 {
		l.Timeline = TimelineID(named)
	}
	if l.Timeline != TimelineID(named) {
		return BackupLabel{}, fmt.Errorf("backup label: timeline %d, but the start is in segment %s", l.Timeline, l.StartSegment)
	}
	return l, nil
}

var labelLines = map[string]func(*BackupLabel, string) error{
	"START WAL LOCATION":   (*BackupLabel).setStart,
	"CHECKPOINT LOCATION":  func(l *BackupLabel, v string) error { return parseInto(&l.Checkpoint, ParseLSN, v) },
	"BACKUP METHOD":        func(l *BackupLabel, v string) error { l.Method = v; return nil },
	"BACKUP FROM":          func(l *BackupLabel, v string) error { l.From = v; return nil },
	"START TIME":           func(l *BackupLabel, v string) error { l.StartTime = v; return nil },
	"LABEL":                func(l *BackupLabel, v string) error { l.Label = v; return nil },
	"START TIMELINE":       func(l *BackupLabel, v string) error { return parseInto(&l.Timeline, ParseTimelineID, v) },
	"INCREMENTAL FROM LSN": func(l *BackupLabel, v string) error { return parseInto(&l.IncrementalFrom, ParseLSN, v) },
	"INCREMENTAL FROM TLI": func(l *BackupLabel, v string) error {
		return parseInto(&l.IncrementalFromTimeline, ParseTimelineID, v)
	},
}

func parseInto[T any](to *T, parse func(string) (T, error), s string) error {
	v, err := parse(s)
	if err != nil {
		return err
	}
	*to = v
	return nil
}

// setStart reads "0/2000028 (file 000000010000000000000002)".
func (l *BackupLabel) setStart(v string) error {
	lsn, file, ok := strings.Cut(v, " (file ")
	file, closed := strings.CutSuffix(file, ")")
	if !ok || !closed || len(file) != 24 || strings.Trim(file, "0123456789ABCDEF") != "" {
		return fmt.Errorf("%q names no position and segment", v)
	}
	l.StartSegment = file
	return parseInto(&l.Start, ParseLSN, lsn)
}

// TablespaceMap is what tablespace_map says: where the symbolic links in
// pg_tblspc pointed when the backup was taken, in the order of the file.
type TablespaceMap []TablespaceLink

// TablespaceLink is one line of a TablespaceMap.
type TablespaceLink struct {
	OID  Oid
	Path string // of the link's target; bytes, not necessarily UTF-8
}

// backslashMajor is the first release that escapes backslashes in
// tablespace_map; those before it escape line breaks only.
const backslashMajor = 14

// ParseTablespaceMap reads the tablespace_map of a server of the given major
// version. PostgreSQL escapes a line break in a path, and from 14 on a
// backslash, with a backslash.
func ParseTablespaceMap(major int, data []byte) (TablespaceMap, error) {
	var m TablespaceMap
	for len(data) > 0 {
		line, rest, err := unescapeLine(major, data)
		if err != nil {
			return nil, err
		}
		data = rest
		if line == "" {
			continue
		}
		number, path, _ := strings.Cut(line, " ")
		oid, err := strconv.ParseUint(number, 10, 32)
		if err != nil || oid == 0 || path == "" || strings.IndexByte(path, 0) >= 0 {
			return nil, fmt.Errorf("tablespace map: %q is not an OID and a path", line)
		}
		m = append(m, TablespaceLink{OID: Oid(oid), Path: path})
	}
	return m, nil
}

func unescapeLine(major int, data []byte) (line string, rest []byte, err error) {
	var b strings.Builder
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case c == '\n' || c == '\r':
			return b.String(), data[i+1:], nil
		case c == '\\' && i+1 < len(data) && (major >= backslashMajor || data[i+1] == '\n' || data[i+1] == '\r'):
			i++
			b.WriteByte(data[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", nil, errors.New("tablespace map: the last line has no end")
}

// Bytes is the file as a server of the given major version writes it.
func (m TablespaceMap) Bytes(major int) []byte {
	var b bytes.Buffer
	for _, l := range m {
		fmt.Fprintf(&b, "%d ", l.OID)
		for i := range len(l.Path) {
			c := l.Path[i]
			if c == '\n' || c == '\r' || c == '\\' && major >= backslashMajor {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
