// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"cmp"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
)

// rowSet counts rows by relation.
type rowSet struct {
	rels  []RelRows
	more  RowCounts // of relations that are no longer told apart
	hint  int       // where rels was found last
	index map[pg.RelFileLocator]int
}

const (
	fewRels = 16 // are looked through
	allRels = 4 * keptRels
	maxRels = 64 // of a transaction in the index
)

// find gives the counts of rel, nil if there are none.
func (s *rowSet) find(rel *pg.RelFileLocator) *RelRows {
	if s.hint < len(s.rels) && s.rels[s.hint].Rel == *rel {
		return &s.rels[s.hint]
	}
	i, ok := 0, false
	if len(s.rels) > fewRels {
		if s.index == nil {
			s.reindex()
		}
		i, ok = s.index[*rel]
	} else {
		for i = range s.rels {
			if ok = s.rels[i].Rel == *rel; ok {
				break
			}
		}
	}
	if !ok {
		return nil
	}
	s.hint = i
	return &s.rels[i]
}

func (s *rowSet) reindex() {
	s.index = make(map[pg.RelFileLocator]int, 2*len(s.rels))
	for i := range s.rels {
		s.index[s.rels[i].Rel] = i
	}
}

// insert makes counts for rel, which has none.
func (s *rowSet) insert(rel *pg.RelFileLocator) *RelRows {
	if len(s.rels) >= allRels {
		s.shrink(keptRels)
	}
	s.hint = len(s.rels)
	if s.hint == cap(s.rels) {
		s.rels = slices.Grow(s.rels, 4)
	}
	s.rels = s.rels[:s.hint+1]
	c := &s.rels[s.hint] // filled where it is: to copy it there takes longer
	c.Rel, c.RowCounts = *rel, RowCounts{}
	if s.index != nil {
		s.index[*rel] = s.hint
	}
	return c
}

func (s *rowSet) merge(o *rowSet) {
	s.more.add(o.more)
	for i := range o.rels {
		r := &o.rels[i]
		c := s.find(&r.Rel)
		if c == nil {
			c = s.insert(&r.Rel)
		}
		c.add(r.RowCounts)
	}
}

// shrink keeps the n relations with most rows apart.
func (s *rowSet) shrink(n int) {
	if len(s.rels) <= n {
		return
	}
	slices.SortStableFunc(s.rels, func(a, b RelRows) int { return cmp.Compare(b.total(), a.total()) })
	for i := range s.rels[n:] {
		s.more.add(s.rels[n+i].RowCounts)
	}
	s.rels, s.hint, s.index = s.rels[:n], 0, nil
}

// arena hands out the many small parts of one Index from large pieces. Transactions
// that did the same share one Changes: most servers do few things, many times.
type arena struct {
	cs   []Changes
	rows []RelRows
	same [1 << sameBits]*Changes
}

const sameBits = 9

func (a *arena) changes() *Changes {
	if len(a.cs) == 0 {
		a.cs = make([]Changes, 64)
	}
	c := &a.cs[0]
	a.cs = a.cs[1:]
	return c
}

// emit gives what s counted as Changes that nobody is to alter.
func (a *arena) emit(s *rowSet, atLeast bool, catalogs []pg.Oid) *Changes {
	hash := uint64(len(s.rels))
	zeros := false
	for i := range s.rels {
		r := &s.rels[i]
		hash = (hash ^ uint64(r.Rel.Rel) ^ r.Inserted<<32 ^ r.Updated<<40 ^ r.Deleted<<48) * 0x9E3779B97F4A7C15
		zeros = zeros || r.RowCounts == RowCounts{}
	}
	if zeros {
		s.rels = slices.DeleteFunc(s.rels, func(r RelRows) bool { return r.RowCounts == RowCounts{} })
		s.hint, s.index = 0, nil
	}
	s.shrink(maxRels)
	if len(s.rels) == 0 && s.more == (RowCounts{}) && !atLeast && catalogs == nil {
		return nil
	}
	same := &a.same[hash>>(64-sameBits)]
	if c := *same; c != nil && c.AtLeast == atLeast && c.More == s.more && slices.Equal(c.Rows, s.rels) && slices.Equal(c.Catalogs, catalogs) {
		return c
	}
	c := a.changes()
	*same = c
	c.More, c.AtLeast, c.Catalogs = s.more, atLeast, catalogs
	n := len(s.rels)
	if n == 0 {
		return c
	}
	if len(a.rows) < n {
		a.rows = make([]RelRows, max(256, n))
	}
	c.Rows = a.rows[:n:n]
	a.rows = a.rows[n:]
	copy(c.Rows, s.rels)
	return c
}
