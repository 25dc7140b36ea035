// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"math/bits"
	"path"
	"strconv"
	"strings"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// changed is what the WAL between two backups says that changed.
type changed struct {
	forks map[fork]*blockSet
	whole map[walindex.Database]bool
}

// fork is one fork of a relation.
type fork struct {
	rel  pg.RelFileLocator
	fork pg.ForkNumber
}

// blockSet is a set of blocks of one fork: some, and all from one on.
type blockSet struct {
	from uint32              // walindex.NoBlock: none
	bits map[uint32][]uint64 // by segment file
}

// wideRun is how many blocks in a row are told as all blocks from the first on:
// nothing that a file has is lost by it, and an index cannot ask for much memory.
const wideRun = 64 * pg.RelSegBlocks

func newChanged() *changed {
	return &changed{forks: map[fork]*blockSet{}, whole: map[walindex.Database]bool{}}
}

func (c *changed) set(f fork) *blockSet {
	s := c.forks[f]
	if s == nil {
		s = &blockSet{from: walindex.NoBlock}
		c.forks[f] = s
	}
	return s
}

// add takes what the index of a segment tells.
func (c *changed) add(x *walindex.Index) {
	for i := range x.Blocks {
		b := &x.Blocks[i]
		s := c.set(fork{b.Rel, b.Fork})
		s.from = min(s.from, b.From)
		for _, r := range b.Runs {
			s.add(r)
		}
	}
	for _, d := range x.Whole {
		c.whole[d] = true
	}
	// A file that is there although it was dropped is another of the same name.
	for _, d := range x.DatabasesDropped {
		for _, spc := range d.Spc {
			c.whole[walindex.Database{Spc: spc, DB: d.DB}] = true
		}
	}
	for i := range x.Transactions {
		for _, rel := range x.Transactions[i].Dropped {
			c.set(fork{rel, pg.MainFork}).from = 0
		}
	}
}

func (s *blockSet) add(r walindex.BlockRun) {
	end := uint64(r.Block) + uint64(r.Count)
	if r.Count > wideRun || end > walindex.NoBlock {
		s.from = min(s.from, r.Block)
		return
	}
	for n := uint64(r.Block); n < end; n++ {
		file, at := uint32(n/pg.RelSegBlocks), int(n%pg.RelSegBlocks/64)
		if s.bits == nil {
			s.bits = map[uint32][]uint64{}
		}
		words := s.bits[file]
		if len(words) <= at {
			words = append(words, make([]uint64, at+1-len(words))...)
			s.bits[file] = words
		}
		words[at] |= 1 << (n % 64)
	}
}

// spans are the changed stretches of the segment file of a fork, in bytes, before end.
// A new main fork makes all its forks new: the file may have another one's name.
func (c *changed) spans(f fork, file uint32, end int64) []span {
	all := []span{{0, end}}
	if end == 0 {
		return nil
	}
	if c.whole[walindex.Database{}] || c.whole[walindex.Database{Spc: f.rel.Spc, DB: f.rel.DB}] {
		return all
	}
	if m := c.forks[fork{f.rel, pg.MainFork}]; m != nil && m.from == 0 {
		return all
	}
	s := c.forks[f]
	if s == nil {
		return nil
	}
	first := uint64(file) * pg.RelSegBlocks
	from := end // in bytes of this file
	if uint64(s.from) <= first {
		return all
	} else if at := int64(uint64(s.from)-first) * pg.BlockSize; s.from != walindex.NoBlock && at < end {
		from = at
	}
	var out []span
	for i, w := range s.bits[file] {
		for w != 0 {
			low := bits.TrailingZeros64(w)
			run := bits.TrailingZeros64(^(w >> low))
			at := int64(i*64+low) * pg.BlockSize
			out = appendSpan(out, span{min(at, from), min(at+int64(run)*pg.BlockSize, from)})
			if low+run == 64 {
				break
			}
			w &^= (1<<run - 1) << low
		}
	}
	return appendSpan(out, span{from, end})
}

// span is a stretch of a file.
type span struct{ from, end int64 }

// appendSpan adds a span that begins behind all others, or touches the last.
func appendSpan(list []span, s span) []span {
	if s.from >= s.end {
		return list
	}
	if n := len(list); n > 0 && list[n-1].end >= s.from {
		list[n-1].end = max(list[n-1].end, s.end)
		return list
	}
	return append(list, s)
}

// Tablespaces that have no directory in pg_tblspc.
const (
	defaultSpace pg.Oid = 1663
	globalSpace  pg.Oid = 1664
)

var forkNumbers = map[string]pg.ForkNumber{"": pg.MainFork, "fsm": pg.FSMFork, "vm": pg.VMFork, "init": pg.InitFork}

// locate tells which fork a relation's file is of, and its segment.
func locate(p string) (f fork, file uint32, ok bool) {
	dir := path.Dir(p)
	if !relationDir(dir) {
		return f, 0, false
	}
	number, name, file, temporary, ok := relationFile(path.Base(p))
	if !ok || temporary {
		return f, 0, false
	}
	f.fork = forkNumbers[name]
	parts := strings.Split(dir, "/")
	f.rel.Spc = globalSpace
	texts, to := []string{number}, []*pg.Oid{&f.rel.Rel}
	switch parts[0] {
	case "base":
		f.rel.Spc = defaultSpace
		texts, to = append(texts, parts[1]), append(to, &f.rel.DB)
	case "pg_tblspc":
		texts, to = append(texts, parts[1], parts[3]), append(to, &f.rel.Spc, &f.rel.DB)
	}
	for i, s := range texts {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return f, 0, false
		}
		*to[i] = pg.Oid(n)
	}
	return f, file, true
}
