// SPDX-License-Identifier: Apache-2.0

package pg_test

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/kbcli/kbcli/engine/pg"
)

// slowChecksum follows the definition in src/include/storage/checksum_impl.h
// word by word.
func slowChecksum(page []byte, block uint32) uint16 {
	lanes := pg.ChecksumBasis
	mix := func(h *uint32, v uint32) {
		t := *h ^ v
		*h = t*16777619 ^ t>>17
	}
	for i := range pg.BlockSize / 4 {
		v := binary.LittleEndian.Uint32(page[4*i:])
		if i == 2 {
			v &= 0xFFFF0000
		}
		mix(&lanes[i%32], v)
	}
	sum := block
	for i := range lanes {
		mix(&lanes[i], 0)
		mix(&lanes[i], 0)
		sum ^= lanes[i]
	}
	return uint16(sum%65535 + 1)
}

func TestPageChecksumFollowsDefinition(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	page := make([]byte, pg.BlockSize)
	for block := range uint32(300) {
		if got, want := pg.PageChecksum(page, block<<20|block), slowChecksum(page, block<<20|block); got != want {
			t.Fatalf("checksum is %d, want %d", got, want)
		}
		random.Read(page)
	}
}

var relationFile = regexp.MustCompile(`^[0-9]+(_fsm|_vm|_init)?(\.([0-9]+))?$`)

// Every page of a cluster that its own pg_checksums passes is passed, and none
// with a bit turned, as far as 16 bits can tell: they miss one in 65,535.
func TestVerifyPagesOfServers(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := initdb(t, major)
			conn := s.start(t)
			query(t, conn, `create table t (id int primary key, words text, parts text[]);
				create index on t using gin (parts); create index on t using brin (id); create index on t using hash (id);
				create unlogged table u (id int primary key);
				insert into t select i, repeat(md5(i::text), 20), array[md5(i::text)] from generate_series(1, 20000) i;
				delete from t where id % 3 = 0`)
			query(t, conn, "vacuum t")
			conn.Close(t.Context())
			s.stop()
			if program := filepath.Join(s.bin, "pg_checksums"); exists(program) {
				run(t, program, "--check", "-D", s.dir)
			}
			found, missed := map[pg.PageState]int{}, 0
			end := controlOf(t, s).Checkpoint
			for _, part := range []string{"base", "global"} {
				err := filepath.WalkDir(filepath.Join(s.dir, part), func(path string, d fs.DirEntry, err error) error {
					name := relationFile.FindStringSubmatch(d.Name())
					if err != nil || !d.Type().IsRegular() || name == nil {
						return err
					}
					file, _ := strconv.Atoi(name[3])
					data := read(t, path)
					for block := uint32(file * pg.RelSegBlocks); len(data) > 0; block++ {
						page := data[:pg.BlockSize]
						state := pg.VerifyPage(page, block)
						if found[state]++; !state.Ok() {
							t.Errorf("%s, block %d: %s", path, block, state)
						}
						if state == pg.PageValid && (pg.PageLSN(page) > end || pg.PageIsNew(page)) {
							t.Errorf("%s, block %d: LSN %s behind the last checkpoint, new: %v", path, block, pg.PageLSN(page), pg.PageIsNew(page))
						}
						if found[state]%16 == 0 && state == pg.PageValid && !spoil(t, page, block) {
							missed++
						}
						data = data[pg.BlockSize:]
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("pages: %v", found)
			if missed > 2 {
				t.Errorf("%d turned bits not found", missed)
			}
			if found[pg.PageValid] < 3000 || found[pg.PageZero] == 0 {
				t.Errorf("too few pages to prove anything: %v", found)
			}
		})
	}
}

func controlOf(t *testing.T, s *server) pg.ControlFile {
	t.Helper()
	c, err := pg.ParseControlFile(read(t, s.dir, "global", "pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// spoil turns one bit of a valid page for a while and tells whether it is found.
func spoil(t *testing.T, page []byte, block uint32) (found bool) {
	t.Helper()
	at, bit := rand.IntN(pg.BlockSize), rand.IntN(8)
	page[at] ^= 1 << bit
	got := pg.VerifyPage(page, block)
	if got.Ok() {
		t.Logf("bit %d of byte %d turned: %s", bit, at, got)
	}
	page[at] ^= 1 << bit
	if got := pg.VerifyPage(page, block+1); got != pg.PageBadChecksum {
		t.Errorf("a page in the place of the next is %s", got)
	}
	return !got.Ok()
}

func TestVerifyPage(t *testing.T) {
	made := func(flags, lower, upper, special uint16) []byte {
		page := make([]byte, pg.BlockSize)
		for i, v := range []uint16{flags, lower, upper, special} {
			binary.LittleEndian.PutUint16(page[10+2*i:], v)
		}
		binary.LittleEndian.PutUint16(page[8:], pg.PageChecksum(page, 7))
		return page
	}
	zeroButOne := make([]byte, pg.BlockSize)
	zeroButOne[8000] = 1
	lsn := made(0, 24, 8192, 8192)
	copy(lsn, []byte{0x16, 0, 0, 0, 0x48, 0xD8, 0x74, 0xB3})
	for name, c := range map[string]struct {
		page []byte
		want pg.PageState
	}{
		"empty":            {made(0, 24, 8192, 8192), pg.PageValid},
		"all flags":        {made(7, 100, 4000, 8176), pg.PageValid},
		"zero":             {make([]byte, pg.BlockSize), pg.PageZero},
		"zero but one":     {zeroButOne, pg.PageBadHeader},
		"unknown flag":     {made(8, 24, 8192, 8192), pg.PageBadHeader},
		"lower over upper": {made(0, 4001, 4000, 8192), pg.PageBadHeader},
		"upper past end":   {made(0, 24, 8192, 8184), pg.PageBadHeader},
		"special past end": {made(0, 24, 8192, 8200), pg.PageBadHeader},
		"special unbound":  {made(0, 24, 8000, 8190), pg.PageBadHeader},
		"changed later":    {lsn, pg.PageBadChecksum},
	} {
		if got := pg.VerifyPage(c.page, 7); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := pg.PageLSN(lsn); got != 0x16_B374D848 {
		t.Errorf("page LSN is %s", got)
	}
}

func FuzzVerifyPage(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint32(7))
	f.Fuzz(func(t *testing.T, data []byte, block uint32) {
		page := make([]byte, pg.BlockSize)
		copy(page, data)
		if got, want := pg.PageChecksum(page, block), slowChecksum(page, block); got != want {
			t.Errorf("checksum is %d, want %d", got, want)
		}
		state := pg.VerifyPage(page, block)
		if state == pg.PageZero != (*(*[pg.BlockSize]byte)(page) == [pg.BlockSize]byte{}) {
			t.Errorf("a page is %s", state)
		}
	})
}

func BenchmarkPageChecksum(b *testing.B) {
	pages := make([]byte, 128*pg.BlockSize)
	rand.NewChaCha8([32]byte{}).Read(pages)
	b.SetBytes(int64(len(pages)))
	b.ReportAllocs()
	for b.Loop() {
		for at := 0; at < len(pages); at += pg.BlockSize {
			pg.PageChecksum(pages[at:at+pg.BlockSize], uint32(at))
		}
	}
}

func BenchmarkVerifyPage(b *testing.B) {
	pages := make([]byte, 128*pg.BlockSize)
	rand.NewChaCha8([32]byte{}).Read(pages)
	for i := range uint32(128) {
		page := pages[i*pg.BlockSize : (i+1)*pg.BlockSize]
		for k, v := range []uint16{0, 24, 8192, 8192} { // flags, lower, upper, special
			binary.LittleEndian.PutUint16(page[10+2*k:], v)
		}
		binary.LittleEndian.PutUint16(page[8:], pg.PageChecksum(page, i))
	}
	b.SetBytes(int64(len(pages)))
	b.ReportAllocs()
	for b.Loop() {
		for i := range uint32(128) {
			if !pg.VerifyPage(pages[i*pg.BlockSize:(i+1)*pg.BlockSize], i).Ok() {
				b.Fatal("a good page was refused")
			}
		}
	}
}
