// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"cmp"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
)

// blockLog gathers changed blocks. Each is noted as a number, fork and block, in
// the order they come; they are sorted at the end, or when there are too many.
type blockLog struct {
	cache [256]cachedFork
	hot   [1 << hotBits]uint64 // keys noted lately, each + 1: most records change few blocks
	ids   map[forkName]uint32
	forks []forkLog
	keys  []uint64 // place in forks << forkShift | block
	tmp   []uint64
	whole map[Database]bool
}

type forkName struct {
	rel  pg.RelFileLocator
	fork pg.ForkNumber
}

type cachedFork struct {
	forkName
	id uint32 // + 1: 0 is an empty place
}

type forkLog struct {
	forkName
	from uint32 // all blocks from it on are changed
}

const (
	maxForks  = 1 << 16 // of which single blocks are known
	maxKeys   = 1 << 21 // noted blocks
	maxWholes = 1 << 12
	hotBits   = 12

	forkShift = 33 // so that places and blocks share no digit of radix
)

func (l *blockLog) reset() {
	l.cache = [256]cachedFork{}
	l.hot = [1 << hotBits]uint64{}
	if len(l.forks) > 1<<12 {
		l.ids = nil
	}
	clear(l.ids)
	l.forks, l.keys, l.whole = l.forks[:0], l.keys[:0], nil
}

// add notes a changed block.
func (l *blockLog) add(rel pg.RelFileLocator, fork pg.ForkNumber, block uint32) {
	id, ok := l.id(rel, fork)
	if !ok {
		return
	}
	key := uint64(id)<<forkShift | uint64(block)
	hot := &l.hot[key*0x9E3779B97F4A7C15>>(64-hotBits)]
	if *hot == key+1 {
		return
	}
	f := &l.forks[id]
	if block >= f.from {
		return
	}
	if len(l.keys) >= maxKeys {
		l.compact()
		if block >= f.from {
			return
		}
	}
	*hot = key + 1
	l.keys = append(l.keys, key)
}

// from notes that all blocks from one on are changed.
func (l *blockLog) from(rel pg.RelFileLocator, fork pg.ForkNumber, block uint32) {
	if id, ok := l.id(rel, fork); ok {
		l.forks[id].from = min(l.forks[id].from, block)
	}
}

// all notes that a whole database is changed. It fails if too many are.
func (l *blockLog) all(d Database) bool {
	if l.whole[d] {
		return true
	}
	if len(l.whole) >= maxWholes {
		return false
	}
	if l.whole == nil {
		l.whole = map[Database]bool{}
	}
	l.whole[d] = true
	return true
}

// id finds the place of a fork. There is none when too many have one: then its
// database is told as a whole.
func (l *blockLog) id(rel pg.RelFileLocator, fork pg.ForkNumber) (uint32, bool) {
	c := &l.cache[(uint32(rel.Rel)*0x9E3779B1^uint32(rel.DB)*0x85EBCA6B+uint32(fork)*0xC2B2AE35)>>24]
	if c.id != 0 && c.rel == rel && c.fork == fork {
		return c.id - 1, true
	}
	name := forkName{rel, fork}
	id, ok := l.ids[name]
	if !ok {
		if len(l.forks) >= maxForks {
			return 0, l.overflow(Database{rel.Spc, rel.DB})
		}
		if l.ids == nil {
			l.ids = map[forkName]uint32{}
		}
		id = uint32(len(l.forks))
		l.ids[name] = id
		l.forks = append(l.forks, forkLog{forkName: name, from: NoBlock})
	}
	*c = cachedFork{name, id + 1}
	return id, true
}

// overflow tells a database as a whole, or, when even of those there are too many,
// everything: database 0 of tablespace 0. It is always false.
func (l *blockLog) overflow(d Database) bool {
	if !l.all(d) {
		l.whole[Database{}] = true
	}
	return false
}

// compact makes room for half of maxKeys: of the files with most changed blocks all
// blocks from the first changed one on are told instead.
func (l *blockLog) compact() {
	l.sort()
	if len(l.keys) <= maxKeys/2 {
		return
	}
	type extent struct{ id, n, first uint32 }
	var most []extent
	for i := 0; i < len(l.keys); {
		id, j := l.keys[i]>>forkShift, i
		for j < len(l.keys) && l.keys[j]>>forkShift == id {
			j++
		}
		most = append(most, extent{uint32(id), uint32(j - i), uint32(l.keys[i])})
		i = j
	}
	slices.SortFunc(most, func(a, b extent) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.id, b.id)) })
	over := len(l.keys) - maxKeys/2
	for _, e := range most {
		if over <= 0 {
			break
		}
		l.forks[e.id].from = min(l.forks[e.id].from, e.first)
		over -= int(e.n)
	}
	l.sort()
}

// sort sorts the keys and leaves out what is told twice.
func (l *blockLog) sort() {
	if cap(l.tmp) < len(l.keys) {
		l.tmp = make([]uint64, cap(l.keys))
	}
	l.keys, l.tmp = radix(l.keys, l.tmp[:cap(l.tmp)])
	kept := l.keys[:0]
	for i, k := range l.keys {
		if (i == 0 || k != l.keys[i-1]) && uint32(k) < l.forks[k>>forkShift].from {
			kept = append(kept, k)
		}
	}
	l.keys = kept
}

// radix sorts a with the help of b, which is at least as long. It gives what is
// sorted, and the other of the two. Most bits of the keys are the same in all: they
// cost nothing.
func radix(a, b []uint64) (sorted, other []uint64) {
	const digit = 11
	var or uint64
	and := ^uint64(0)
	for _, k := range a {
		or |= k
		and &= k
	}
	for shift := 0; shift < 64; shift += digit {
		if (or^and)>>shift&(1<<digit-1) == 0 {
			continue
		}
		var at [1 << digit]uint32
		for _, k := range a {
			at[k>>shift&(1<<digit-1)]++
		}
		sum := uint32(0)
		for i, n := range at {
			at[i] = sum
			sum += n
		}
		b = b[:len(a)]
		for _, k := range a {
			p := &at[k>>shift&(1<<digit-1)]
			b[*p] = k
			*p++
		}
		a, b = b, a
	}
	return a, b
}

// finish gives what was noted, in order.
func (l *blockLog) finish() ([]ForkBlocks, []Database) {
	l.sort()
	runs := make([]BlockRun, 0, len(l.keys)/2)
	ends := make([]int, len(l.forks)) // of each fork's runs
	began := make([]int, len(l.forks))
	last := -1
	for i, k := range l.keys {
		if i > 0 && k == l.keys[i-1]+1 {
			runs[len(runs)-1].Count++
			continue
		}
		if id := int(k >> forkShift); id != last {
			began[id] = len(runs)
			last = id
		}
		runs = append(runs, BlockRun{uint32(k), 1})
		ends[last] = len(runs)
	}
	var out []ForkBlocks
	for i, f := range l.forks {
		b := ForkBlocks{Rel: f.rel, Fork: f.fork, From: f.from}
		if ends[i] > began[i] {
			b.Runs = runs[began[i]:ends[i]:ends[i]]
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b ForkBlocks) int {
		return cmp.Or(compareRels(a.Rel, b.Rel), cmp.Compare(a.Fork, b.Fork))
	})
	var whole []Database
	for d := range l.whole {
		whole = append(whole, d)
	}
	slices.SortFunc(whole, func(a, b Database) int { return cmp.Or(cmp.Compare(a.Spc, b.Spc), cmp.Compare(a.DB, b.DB)) })
	return out, whole
}

func compareRels(a, b pg.RelFileLocator) int {
	return cmp.Or(cmp.Compare(a.Spc, b.Spc), cmp.Compare(a.DB, b.DB), cmp.Compare(a.Rel, b.Rel))
}
