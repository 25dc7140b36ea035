// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
)

// relieve makes room. Subtransactions whose transaction is known are added up to
// it; of transactions with very many relations only those with most rows are kept
// apart; and if that is not enough, everything is let go of, and what follows at is
// counted anew.
func (s *openSet) relieve(at pg.LSN) {
	s.drop(func(o *openXact) bool {
		if o.top == 0 || o.top == o.xid || o.prepared {
			return false
		}
		top := s.find(o.top)
		if top == nil {
			top = s.insert(o.top)
		}
		if top.foldedTo == 0 {
			s.folded = append(s.folded, top)
			top.foldedTo = o.xid
		} else if precedes(top.foldedTo, o.xid) {
			top.foldedTo = o.xid
		}
		before := len(top.folded.rels)
		top.folded.merge(&o.rowSet)
		s.rows += len(top.folded.rels) - before
		top.atLeast = top.atLeast || o.atLeast
		top.catalogs = append(top.catalogs, o.catalogs...)
		slices.Sort(top.catalogs)
		top.catalogs = slices.Compact(top.catalogs)
		return true
	})
	if s.rows >= maxRows/2 {
		s.drop(func(o *openXact) bool {
			before := len(o.rels) + len(o.folded.rels)
			o.shrink(keptRels)
			o.folded.shrink(keptRels)
			s.rows += len(o.rels) + len(o.folded.rels) - before
			return false
		})
	}
	if s.n >= maxOpen*3/4 || s.rows >= maxRows*3/4 {
		classes := s.classes
		s.forget()
		s.begin(at)
		s.classes = classes
	}
}

// unfold gives up what can no longer be told apart from what x did, which is rolled back.
func (s *openSet) unfold(x pg.XID) {
	for i := 0; i < len(s.folded); i++ {
		o := s.folded[i]
		if !precedes(o.xid, x) || precedes(o.foldedTo, x) {
			continue
		}
		s.rows -= len(o.folded.rels)
		o.folded, o.foldedTo, o.atLeast = rowSet{}, 0, true
		s.folded = slices.Delete(s.folded, i, i+1)
		i--
	}
}
