// SPDX-License-Identifier: Apache-2.0

package walindex_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/internal/testpg"
)

// indexDir makes the indexes of all WAL in a server's pg_wal. If handed, each begins
// with what was read back of the one before.
func indexDir(t testing.TB, dir string, size pg.SegmentSize, handed bool) []*walindex.Index {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var first *pg.Segment
	for _, n := range names { // in order
		if g, err := size.ParseName(n.Name()); err == nil {
			first = &g
			break
		}
	}
	s := walscan.New(walscan.Options{SegmentSize: size, Start: size.Start(first.Number)})
	var out []*walindex.Index
	var b walindex.Builder
	for g := *first; ; g.Number++ {
		raw, err := os.ReadFile(filepath.Join(dir, size.Name(g)))
		if errors.Is(err, fs.ErrNotExist) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if handed {
			b = walindex.Builder{}
			if len(out) > 0 && !b.Resume(out[len(out)-1]) {
				t.Fatal("the index is not detailed")
			}
		}
		b.Begin(g, false)
		err = s.Feed(raw, b.Add)
		var end *walscan.EndError
		var bad *walscan.CorruptError
		ended := errors.As(err, &end) || errors.As(err, &bad) && bad.Stale
		if err != nil && !ended {
			t.Fatal(err)
		}
		x, err := walindex.Decode(b.Finish(s.NextRecord()).Encode())
		if err != nil {
			t.Fatal(err)
		}
		if out = append(out, x); ended {
			return out
		}
	}
}

// said is what pg_waldump's text says, or an Index.
type said struct {
	Rows   map[string]string // by transaction's end and relation
	Blocks map[string]bool
	Facts  []string
	Bytes  map[string]counted // by resource manager
}

type teller struct {
	said
	open map[string]map[string]*walindex.RowCounts
}

var (
	dumpLine  = regexp.MustCompile(`^rmgr: (\S+) +len \(rec/tot\): +\d+/ *(\d+), tx: +(\d+), lsn: ([0-9A-F/]+), prev [0-9A-F/]+, desc: (?s:(.*?))((?:, blkref #.*)?)$`)
	blockRef  = regexp.MustCompile(`blkref #\d+: rel (\d+/\d+/\d+)(?: fork (\w+))? blk (\d+)`)
	tuples    = regexp.MustCompile(`ntuples: (\d+)|INSERT(?:\+INIT)? (\d+) tuples`)
	dumpFlags = regexp.MustCompile(`flags:? 0x([0-9A-Fa-f]{2})`)
	subxacts  = regexp.MustCompile(`subxacts: ([0-9 ]+)`)
	prepared  = regexp.MustCompile(`^(?:COMMIT|ABORT)_PREPARED (\d+):`)
	spaceDir  = regexp.MustCompile(`pg_tblspc/(\d+)/PG_\d+_\d+/`)
	filePath  = regexp.MustCompile(`(?:base/(\d+)|global|pg_tblspc/(\d+)/(\d+))/(\d+)(?:_(\w+))?`)
)

// file makes pg_waldump's path what a RelFileLocator and a fork are printed as.
func file(path string) string {
	m := filePath.FindStringSubmatch(path)
	if m == nil {
		return "?" + path
	}
	rel := "1664/0/" + m[4]
	if m[1] != "" {
		rel = "1663/" + m[1] + "/" + m[4]
	} else if m[2] != "" {
		rel = m[2] + "/" + m[3] + "/" + m[4]
	}
	if m[5] != "" {
		rel += " " + m[5]
	}
	return rel
}

func shortLSN(t testing.TB, s string) pg.LSN {
	l, err := pg.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dump has pg_waldump tell.
func dump(t testing.TB, i testpg.Install, dir string, start pg.LSN) said {
	t.Helper()
	argv := append(i.Waldump(t), "-p", dir, "-s", start.String())
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	out, _ := c.Output() // it ends with an error, always: there is no more WAL
	d := teller{said{map[string]string{}, map[string]bool{}, nil, map[string]counted{}}, map[string]map[string]*walindex.RowCounts{}}
	in := bufio.NewScanner(bytes.NewReader(out))
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		m := dumpLine.FindStringSubmatch(in.Text())
		if m == nil {
			t.Fatalf("pg_waldump: %.300q", in.Text())
		}
		length, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		d.Bytes[m[1]] = counted{d.Bytes[m[1]].Records + 1, d.Bytes[m[1]].Bytes + length}
		d.record(t, m[1], m[3], shortLSN(t, m[4]), spaceDir.ReplaceAllString(m[5], "pg_tblspc/$1/"), blockRef.FindAllStringSubmatch(m[6], -1))
	}
	return d.said
}

func (d *teller) record(t testing.TB, rmgr, xid string, lsn pg.LSN, desc string, refs [][]string) {
	for _, ref := range refs {
		fork := ref[2]
		if fork == "" {
			fork = "main"
		}
		d.Blocks[ref[1]+" "+fork+" "+ref[3]] = true
	}
	word := strings.FieldsFunc(desc, func(r rune) bool { return r == ' ' || r == '+' || r == ';' })
	op := ""
	if len(word) > 0 {
		op = word[0]
	}
	fact := func(format string, args ...any) {
		d.Facts = append(d.Facts, fmt.Sprintf("%s ", lsn)+fmt.Sprintf(format, args...))
	}
	switch rmgr {
	case "Heap", "Heap2":
		d.heap(t, op, xid, desc, refs)
		if op == "TRUNCATE" {
			_, list, _ := strings.Cut(desc, "relids")
			list = list[strings.Index(list, "relids")+len("relids"):]
			fact("truncate %s", strings.Trim(strings.ReplaceAll(list, ",", ""), ":[] "))
		}
	case "Transaction":
		d.transaction(op, xid, lsn, desc)
	case "Storage":
		_, rest, _ := strings.Cut(desc, " ")
		if op == "CREATE" {
			fact("create %s xid %s", file(rest), xid)
			break
		}
		f := strings.Fields(rest)
		fact("cut %s to %s flags %s", file(f[0]), f[2], f[5])
	case "Database":
		m := regexp.MustCompile(`(copy|create|DROP) dir ?(.*)$`).FindStringSubmatch(desc)
		fact("database %s %s", strings.ToLower(m[1]), strings.TrimSpace(m[2]))
	case "Tablespace":
		fact("tablespace %s", strings.ReplaceAll(strings.ToLower(desc), `"`, ""))
	case "XLOG":
		if s := xlog(t, op, desc); s != "" {
			fact("%s", s)
		}
	case "RelMap":
		fact("map %s", strings.TrimPrefix(desc[:strings.Index(desc, " size")], "UPDATE "))
	}
}

func (d *teller) heap(t testing.TB, op, xid, desc string, refs [][]string) {
	if len(refs) == 0 {
		return
	}
	flags := uint64(0)
	if m := dumpFlags.FindStringSubmatch(desc); m != nil {
		if _, err := fmt.Sscanf(m[1], "%x", &flags); err != nil {
			t.Fatal(err)
		}
	}
	c := walindex.RowCounts{}
	clears := func(i int) {
		var block int
		if _, err := fmt.Sscan(refs[min(i, len(refs)-1)][3], &block); err != nil {
			t.Fatal(err)
		}
		d.Blocks[fmt.Sprintf("%s vm %d", refs[0][1], block/32672)] = true
	}
	old := 0
	switch op {
	case "INSERT":
		c.Inserted = 1
	case "MULTI_INSERT":
		m := tuples.FindStringSubmatch(desc)
		if m == nil {
			t.Fatal(desc)
		}
		if _, err := fmt.Sscan(m[1]+m[2], &c.Inserted); err != nil {
			t.Fatal(err)
		}
	case "UPDATE", "HOT_UPDATE":
		c.Updated = 1
		old = 1
		if flags&2 != 0 {
			clears(0)
		}
	case "DELETE":
		if c.Deleted = 1; flags&8 != 0 {
			c = walindex.RowCounts{Inserted: ^uint64(0)} // one less
		}
	case "LOCK", "LOCK_UPDATED":
	default:
		return
	}
	if flags&1 != 0 {
		clears(old)
	}
	if c == (walindex.RowCounts{}) {
		return
	}
	if d.open[xid] == nil {
		d.open[xid] = map[string]*walindex.RowCounts{}
	}
	n := d.open[xid][refs[0][1]]
	if n == nil {
		n = &walindex.RowCounts{}
		d.open[xid][refs[0][1]] = n
	}
	n.Inserted += c.Inserted
	n.Updated += c.Updated
	n.Deleted += c.Deleted
}

func (d *teller) transaction(op, xid string, lsn pg.LSN, desc string) {
	switch op {
	case "COMMIT", "ABORT", "PREPARE", "COMMIT_PREPARED", "ABORT_PREPARED":
	default:
		return
	}
	if m := prepared.FindStringSubmatch(desc); m != nil {
		xid = m[1]
	}
	d.Facts = append(d.Facts, fmt.Sprintf("%s ", lsn)+end(op, xid, desc))
	xids := []string{xid}
	if m := subxacts.FindStringSubmatch(desc); m != nil {
		xids = append(xids, strings.Fields(m[1])...)
	}
	sum := map[string]*walindex.RowCounts{}
	for _, x := range xids {
		for rel, c := range d.open[x] {
			if sum[rel] == nil {
				sum[rel] = &walindex.RowCounts{}
			}
			sum[rel].Inserted += c.Inserted
			sum[rel].Updated += c.Updated
			sum[rel].Deleted += c.Deleted
		}
		delete(d.open, x)
	}
	if op == "PREPARE" {
		d.open[xid] = sum
		return
	}
	for rel, c := range sum {
		if *c != (walindex.RowCounts{}) {
			d.Rows[fmt.Sprintf("%s %s %s", lsn, op, rel)] = fmt.Sprint(*c)
		}
	}
}

// tell is what indexes say, in the same words. lie is a transaction that counts as at least.
func tell(t testing.TB, all []*walindex.Index) said {
	d := said{map[string]string{}, map[string]bool{}, nil, map[string]counted{}}
	for _, x := range all {
		fact := func(lsn pg.LSN, format string, args ...any) {
			d.Facts = append(d.Facts, fmt.Sprintf("%s ", lsn)+fmt.Sprintf(format, args...))
		}
		ended(x, fact)
		for _, b := range x.Bytes {
			name := b.Rmgr.String()
			d.Bytes[name] = counted{d.Bytes[name].Records + b.Records, d.Bytes[name].Bytes + b.Bytes}
		}
		for _, tx := range x.Transactions {
			if tx.Changes == nil {
				continue
			}
			if tx.Changes.More != (walindex.RowCounts{}) {
				t.Errorf("transaction %d has more: %+v", tx.XID, tx.Changes.More)
			}
			for _, r := range tx.Changes.Rows {
				d.Rows[fmt.Sprintf("%s %s %s", tx.Start, tx.Kind, r.Rel)] = fmt.Sprint(r.RowCounts)
			}
		}
		for _, f := range x.Blocks {
			for _, r := range f.Runs {
				for n := range r.Count {
					d.Blocks[fmt.Sprintf("%s %s %d", f.Rel, f.Fork, r.Block+n)] = true
				}
			}
		}
		fork := func(f pg.ForkNumber) string {
			if f == pg.MainFork {
				return ""
			}
			return " " + f.String()
		}
		for _, c := range x.Creations {
			fact(c.Start, "create %s%s xid %d", c.Rel, fork(c.Fork), c.XID)
		}
		for _, c := range x.Truncations {
			fact(c.Start, "cut %s to %d flags %d", c.Rel, c.Blocks, c.Flags)
		}
		for _, c := range x.Maps {
			fact(c.Start, "map database %d tablespace %d", c.DB, c.Spc)
		}
		for _, c := range x.DatabasesMade {
			if c.FileCopy {
				fact(c.Start, "database copy %d/%d to %d/%d", c.SrcSpc, c.SrcDB, c.Spc, c.DB)
			} else {
				fact(c.Start, "database create %d/%d", c.Spc, c.DatabaseCreate.DB)
			}
		}
		for _, c := range x.DatabasesDropped {
			var dirs []string
			for _, spc := range c.Spc {
				dirs = append(dirs, fmt.Sprintf("%d/%d", spc, c.DB))
			}
			fact(c.Start, "database drop %s", strings.Join(dirs, " "))
		}
		for _, c := range x.Tablespaces {
			fact(c.Start, "tablespace create %d %s", c.Oid, c.Path)
		}
		for _, c := range x.TablespacesDropped {
			fact(c.Start, "tablespace drop %d", c.Oid)
		}
		for _, c := range x.Truncates {
			fact(c.Start, "truncate %s", strings.Trim(fmt.Sprint(c.Rels), "[]"))
		}
	}
	return d
}

// agree holds indexes against pg_waldump. Blocks that are told in another way need
// not be told one by one.
func agree(t *testing.T, i testpg.Install, dir string, size pg.SegmentSize, all []*walindex.Index) {
	t.Helper()
	want, got := dump(t, i, dir, size.Start(all[0].Segment.Number)), tell(t, all)
	if diff := cmp.Diff(want.Rows, got.Rows); diff != "" {
		t.Errorf("rows (-pg_waldump +index):\n%.3000s", diff)
	}
	byLSN := func(facts []string) map[string]bool {
		m := map[string]bool{}
		for _, f := range facts {
			m[f] = true
		}
		return m
	}
	if diff := cmp.Diff(byLSN(want.Facts), byLSN(got.Facts)); diff != "" {
		t.Errorf("facts (-pg_waldump +index):\n%.3000s", diff)
	}
	if diff := cmp.Diff(want.Bytes, got.Bytes); diff != "" {
		t.Errorf("bytes by resource manager (-pg_waldump +index):\n%s", diff)
	}
	for b := range got.Blocks {
		if !want.Blocks[b] {
			t.Errorf("block %s is not in any record", b)
		}
	}
	c := cover(all)
	missing := 0
	for b := range want.Blocks {
		var spc, db, rel pg.Oid
		var fork string
		var block uint32
		if _, err := fmt.Sscanf(b, "%d/%d/%d %s %d", &spc, &db, &rel, &fork, &block); err != nil {
			t.Fatal(err)
		}
		if !got.Blocks[b] && !c.has(pg.RelFileLocator{Spc: spc, DB: db, Rel: rel}, fork, block) {
			if missing++; missing < 10 {
				t.Errorf("block %s is not told", b)
			}
		}
	}
	t.Logf("%d indexes: %d rows' counts, %d facts, %d blocks agree", len(all), len(want.Rows), len(want.Facts), len(want.Blocks))
	if len(want.Rows) < 100 || len(want.Facts) < 20 || len(want.Blocks) < 500 {
		t.Error("that is too little to mean much")
	}
}

// covered answers whether a block is among those that indexes tell.
type covered struct {
	single map[string]bool
	from   map[string]uint32
	whole  map[walindex.Database]bool
}

func cover(all []*walindex.Index) covered {
	c := covered{map[string]bool{}, map[string]uint32{}, map[walindex.Database]bool{}}
	for _, x := range all {
		for _, f := range x.Blocks {
			name := fmt.Sprintf("%s %s", f.Rel, f.Fork)
			if at, ok := c.from[name]; !ok || f.From < at {
				c.from[name] = f.From
			}
			for _, r := range f.Runs {
				for n := range r.Count {
					c.single[fmt.Sprintf("%s %d", name, r.Block+n)] = true
				}
			}
		}
		for _, d := range x.Whole {
			c.whole[d] = true
		}
	}
	return c
}

func (c covered) has(rel pg.RelFileLocator, fork string, block uint32) bool {
	name := fmt.Sprintf("%s %s", rel, fork)
	from, ok := c.from[name]
	return c.single[fmt.Sprintf("%s %d", name, block)] || ok && block >= from || c.whole[walindex.Database{Spc: rel.Spc, DB: rel.DB}]
}
