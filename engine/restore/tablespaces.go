// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Replay of CREATE TABLESPACE empties a directory at the path that its record names, which
// on the machine of the source is the source's own. So the record is handed to the server
// with another path, "../x": the server's working directory is its data directory, from
// where that is x beside it, and the link in pg_tblspc that has this path leads to x in
// the data directory. Both are links to the tablespace's new directory. When recovery has
// ended the link in pg_tblspc is set right, and they go.

// MadeTablespace is a tablespace that replay makes.
type MadeTablespace struct {
	LSN  pg.LSN `json:"lsn"`
	Oid  pg.Oid `json:"oid"`
	Path string `json:"path"` // where it was on the source
}

// TablespaceMadeError says that replay would make a tablespace's directory at a
// place that is the source's own, and cannot be told another.
type TablespaceMadeError struct {
	LSN  pg.LSN
	Path string
}

func (e *TablespaceMadeError) Error() string {
	return fmt.Sprintf("a tablespace was created at %s (LSN %s) after the backup: replay would write into that directory, and the path is too short to be another's", e.Path, e.LSN)
}

// elsewhere is how the path begins that a record is given.
const elsewhere = "../"

func madeOf(in []walindex.Tablespace) ([]MadeTablespace, error) {
	var out []MadeTablespace
	for _, t := range in {
		if t.Path == "" {
			continue // made in place (allow_in_place_tablespaces): within the data directory
		}
		if len(t.Path) <= len(elsewhere) {
			return nil, &TablespaceMadeError{t.Start, t.Path}
		}
		out = append(out, MadeTablespace{t.Start, t.Oid, t.Path})
	}
	return out, nil
}

// HasTablespaces tells whether Into.Tablespaces is needed.
func (p *Plan) HasTablespaces() bool { return len(p.Tablespaces) > 0 || len(p.Made) > 0 }

// patch is what takes the place of bytes of WAL.
type patch struct {
	at    pg.LSN
	bytes []byte
}

// patch changes segment n of WAL as far as b has it.
func (p *Plan) patch(n uint64, b []byte) {
	start := p.lineage.Info().SegmentSize.Start(n)
	for _, x := range p.patches {
		if x.at >= start && x.at < start+pg.LSN(len(b)) { // none spans segments: each is within a page
			copy(b[x.at-start:], x.bytes)
		}
	}
}

// linkName is the i-th short name: a, b, … z, aa, …
func linkName(i int) string {
	name := ""
	for i++; i > 0; i = (i - 1) / 26 {
		name = string(rune('a'+(i-1)%26)) + name
	}
	return name
}

// moveTablespaces makes the directories of those that replay makes, the links that lead
// there meanwhile, and the patches of their records.
func (s *recoverer) moveTablespaces(ctx context.Context) error {
	names := map[pg.Oid]string{}
	next := 0
	s.plan.patches = nil
	for _, t := range s.plan.Made {
		if s.r.Tablespaces == "" {
			return fmt.Errorf("a tablespace %d (%s) is made on the way and no place for it was given", t.Oid, t.Path)
		}
		if names[t.Oid] == "" {
			name, err := s.linkTablespace(t, &next)
			if err != nil {
				return err
			}
			names[t.Oid] = name
		}
		if err := s.rename(ctx, t, elsewhere+names[t.Oid]); err != nil {
			return err
		}
	}
	return nil
}

// linkTablespace makes the directory of a tablespace and the two links to it.
func (s *recoverer) linkTablespace(t MadeTablespace, next *int) (name string, err error) {
	if err := os.MkdirAll(s.r.Tablespaces, 0o755); err != nil { // the server's user passes through
		return "", err
	}
	dir, err := filepath.Abs(s.tablespace(t.Oid))
	if err != nil {
		return "", err
	}
	if err := s.dir(dir); err != nil {
		return "", err
	}
	for {
		name = linkName(*next)
		*next++
		places := []string{filepath.Join(s.r.DataDirectory, name), filepath.Join(s.r.DataDirectory, "..", name)}
		if slices.ContainsFunc(places, func(p string) bool { return taken(p, dir) }) {
			continue
		}
		for _, link := range places {
			if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
			if err := os.Symlink(dir, link); err != nil {
				return "", err
			}
			s.links = append(s.links, link)
			if err := s.own(link); err != nil {
				return "", err
			}
		}
		return name, nil
	}
}

// taken tells whether something is at path that is not the link to dir which a restore
// left that was interrupted.
func taken(path, dir string) bool {
	if to, err := os.Readlink(path); err == nil && to == dir {
		return false
	}
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func (s *recoverer) tablespace(oid pg.Oid) string {
	return filepath.Join(s.r.Tablespaces, strconv.FormatUint(uint64(oid), 10))
}

// The header of a record of WAL: its length, and the checksum that ends it.
const recordHeader, recordCRC = 24, 20

// rename patches the record that makes a tablespace: it names path.
func (s *recoverer) rename(ctx context.Context, t MadeTablespace, path string) error {
	if len(path) > len(t.Path) {
		return &TablespaceMadeError{t.LSN, t.Path}
	}
	raw, at, err := s.plan.record(ctx, t.LSN)
	if err != nil {
		return fmt.Errorf("read the record at %s: %w", t.LSN, err)
	}
	from := len(raw) - len(t.Path) - 1
	if from < recordHeader+4 || string(raw[from:]) != t.Path+"\x00" || binary.LittleEndian.Uint32(raw[from-4:]) != uint32(t.Oid) {
		return fmt.Errorf("the record at %s does not make tablespace %d at %s", t.LSN, t.Oid, t.Path)
	}
	was := bytes.Clone(raw)
	clear(raw[from:])
	copy(raw[from:], path)
	crc := crc32.Update(crc32.Checksum(raw[recordHeader:], castagnoli), castagnoli, raw[:recordCRC])
	binary.LittleEndian.PutUint32(raw[recordCRC:], crc)
	for i := range raw {
		if raw[i] != was[i] {
			s.plan.patches = append(s.plan.patches, patch{at[i], raw[i : i+1]})
		}
	}
	return nil
}

// record reads the bytes of the record that starts at lsn, and where each of them is.
func (p *Plan) record(ctx context.Context, lsn pg.LSN) (raw []byte, at []pg.LSN, err error) {
	size := p.lineage.Info().SegmentSize
	var segment []byte
	n, need := uint64(0), recordHeader
	for l := lsn; len(raw) < need; l++ {
		l = bodyOf(size, l)
		if segment == nil || size.Number(l) != n {
			n = size.Number(l)
			if segment, err = catalog.ReadSegment(ctx, p.lineage, p.path, n, segment); err != nil {
				return nil, nil, err
			}
		}
		off := int(l - size.Start(n))
		if off >= len(segment) {
			return nil, nil, fmt.Errorf("it ends at %s in the repository", l)
		}
		raw, at = append(raw, segment[off]), append(at, l)
		if len(raw) == 4 {
			// a path has at most 1024 bytes
			if need = int(binary.LittleEndian.Uint32(raw)); need < recordHeader || need > 4096 {
				return nil, nil, fmt.Errorf("it has %d bytes", need)
			}
		}
	}
	return raw, at, nil
}

// tablespacesOf are the tablespaces that a server has.
func tablespacesOf(ctx context.Context, c *client.Conn) (map[pg.Oid]bool, error) {
	rows, err := c.SQL().Query(ctx, "select oid from pg_tablespace")
	if err != nil {
		return nil, fmt.Errorf("ask the recovered server for its tablespaces: %w", err)
	}
	out := map[pg.Oid]bool{}
	var oid uint32
	if _, err := pgx.ForEachRow(rows, []any{&oid}, func() error { out[pg.Oid(oid)] = true; return nil }); err != nil {
		return nil, fmt.Errorf("ask the recovered server for its tablespaces: %w", err)
	}
	return out, nil
}

// settleTablespaces leaves of the tablespaces that replay made those that the server
// has, each with a link to its own directory. What made the others was not committed
// by the stop, or they were dropped.
func (s *recoverer) settleTablespaces() error {
	for _, link := range s.links {
		if err := os.Remove(link); err != nil {
			return err
		}
	}
	s.links = nil
	for _, t := range s.plan.Made {
		link := filepath.Join(s.r.DataDirectory, "pg_tblspc", strconv.FormatUint(uint64(t.Oid), 10))
		dir, err := filepath.Abs(s.tablespace(t.Oid))
		if err != nil {
			return err
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !s.spaces[t.Oid] {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		if err := os.Symlink(dir, link); err != nil {
			return err
		}
		if err := s.own(link); err != nil {
			return err
		}
	}
	return nil
}
