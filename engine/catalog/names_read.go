// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"slices"
	"sort"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// relKey is a relation, or the file of one, in a database.
type relKey struct{ db, oid pg.Oid }

// called is what a relation was called from about an LSN on; nil: it was no more.
type called struct {
	from pg.LSN
	*RelationName
	rows int64 // when it was first called so
}

// relName is what a relation is called in a database.
type relName struct {
	db           pg.Oid
	schema, name string
}

// naming finds names for what the log numbers. Names that did not change are kept once,
// however often they were stored.
type naming struct {
	relations map[relKey][]called // by oid, in order
	files     map[relKey][]called // by file, in order
	byName    map[relName][]pg.Oid
	databases map[pg.Oid][]struct {
		from pg.LSN
		name string
	}
	live map[pg.Oid]map[pg.Oid]bool // the relations of each database, as they were told last
	last map[pg.Oid]pg.LSN          // where a database was told last; database 0: any
}

// keepFetched is how many objects are fetched at once.
const keepFetched = 8

// namesAfter is how many objects are read at most of those behind what is asked for:
// what was made last is named by them, and what it was that was dropped last.
const namesAfter = 16

// errNamesMoved says that names were put together while they were read.
var errNamesMoved = errors.New("names were put together since they were listed")

// namesFor reads the names that hold on p from one position to another: those before
// from, and later ones up to those that tell what became of it all. What is damaged or
// sealed is passed over: numbers are shown in its place.
func (c *Catalog) namesFor(ctx context.Context, p Path, from, to pg.LSN) (*naming, error) {
	for try := 0; ; try++ {
		all, err := c.l.NamesObjects(ctx)
		if err != nil && !isDamage(err) {
			return nil, err
		}
		n, err := c.readNames(ctx, namesBetween(p, all, from, to), try < 3)
		if !errors.Is(err, errNamesMoved) {
			return n, err
		}
	}
}

// namesBetween are the objects that namesFor needs.
func namesBetween(p Path, all []repository.NamesObject, from, to pg.LSN) []repository.NamesObject {
	first := 0
	kept := all[:0]
	after := 0
	for _, o := range all {
		if p.TimelineAt(max(o.LSN, 1)-1) != o.Timeline {
			continue
		}
		if o.Full && o.LSN <= from {
			first = len(kept)
		}
		kept = append(kept, o)
		if o.LSN > to {
			if after++; o.Full || after == namesAfter {
				break
			}
		}
	}
	return kept[first:]
}

// readNames reads objects. If it must, one that is no more is an error.
func (c *Catalog) readNames(ctx context.Context, kept []repository.NamesObject, must bool) (*naming, error) {
	n := &naming{
		relations: map[relKey][]called{}, files: map[relKey][]called{}, byName: map[relName][]pg.Oid{},
		databases: map[pg.Oid][]struct {
			from pg.LSN
			name string
		}{},
		live: map[pg.Oid]map[pg.Oid]bool{}, last: map[pg.Oid]pg.LSN{},
	}
	var since pg.LSN // parts before are told by the full one that is there
	if len(kept) > 0 && kept[0].Full {
		since = kept[0].LSN
	}
	seen := map[pg.LSN]bool{}
	for len(kept) > 0 {
		batch := kept[:min(len(kept), keepFetched)]
		kept = kept[len(batch):]
		got := make([][]namesPart, len(batch))
		var g errgroup.Group
		for i, o := range batch {
			g.Go(func() (err error) {
				got[i], err = readParts(ctx, c.l, o)
				if errors.Is(err, blob.ErrNotExist) && must {
					return errNamesMoved
				}
				if unreadable(err) || errors.Is(err, blob.ErrNotExist) {
					err = nil
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for i, parts := range got {
			for _, part := range parts {
				if !batch[i].Full {
					if part.lsn < since || seen[part.lsn] {
						continue // it was put together with others, and read there
					}
					seen[part.lsn] = true
				}
				x, err := DecodeNames(part.body)
				if err != nil {
					continue
				}
				if batch[i].Full {
					since = part.lsn
				}
				n.add(part.lsn, x)
			}
		}
	}
	return n, nil
}

func (n *naming) add(at pg.LSN, x *Names) {
	n.last[0] = at
	seen := map[pg.Oid]bool{}
	for i := range x.Databases {
		d := &x.Databases[i]
		seen[d.Oid] = true
		names := n.databases[d.Oid]
		if k := len(names); k == 0 || names[k-1].name != d.Name {
			n.databases[d.Oid] = append(names, struct {
				from pg.LSN
				name string
			}{at, d.Name})
		}
		if !d.Told && !d.Part {
			continue
		}
		n.addRelations(at, d)
	}
	for oid, names := range n.databases {
		if !seen[oid] && names[len(names)-1].name != "" {
			n.databases[oid] = append(names, struct {
				from pg.LSN
				name string
			}{at, ""})
		}
	}
}

func (n *naming) addRelations(at pg.LSN, d *DatabaseNames) {
	n.last[d.Oid] = at
	live := n.live[d.Oid]
	if live == nil {
		live = map[pg.Oid]bool{}
		n.live[d.Oid] = live
	}
	gone := d.Gone
	if d.Told {
		now := make(map[pg.Oid]bool, len(d.Relations))
		for i := range d.Relations {
			now[d.Relations[i].Oid] = true
		}
		for oid := range live {
			if !now[oid] {
				gone = append(gone, oid)
			}
		}
	}
	for _, oid := range gone {
		delete(live, oid)
		k := relKey{d.Oid, oid}
		n.relations[k] = append(n.relations[k], called{at, nil, 0})
	}
	for i := range d.Relations {
		r := &d.Relations[i]
		k := relKey{d.Oid, r.Oid}
		was := n.relations[k]
		if i := len(was) - 1; live[r.Oid] && i >= 0 && was[i].RelationName != nil && was[i].same(r) {
			was[i].Rows = r.Rows
			continue
		}
		live[r.Oid] = true
		n.relations[k] = append(was, called{at, r, r.Rows})
		if name := (relName{d.Oid, r.Schema, r.Name}); !slices.Contains(n.byName[name], r.Oid) {
			n.byName[name] = append(n.byName[name], r.Oid)
		}
		if r.File != 0 {
			f := relKey{d.Oid, r.File}
			n.files[f] = append(n.files[f], called{at, r, r.Rows})
		}
	}
}

// calledAt is what held at an LSN: the newest before, or the first after.
func calledAt(all []called, lsn pg.LSN) *RelationName {
	if len(all) == 0 {
		return nil
	}
	i := sort.Search(len(all), func(i int) bool { return all[i].from > lsn })
	return all[max(i, 1)-1].RelationName
}

// file names the relation that a file was of at an LSN; nil is unknown.
func (n *naming) file(f pg.RelFileLocator, lsn pg.LSN) *RelationName {
	return calledAt(n.files[relKey{f.DB, f.Rel}], lsn)
}

// relation names a relation by its oid.
func (n *naming) relation(db, oid pg.Oid, lsn pg.LSN) *RelationName {
	return calledAt(n.relations[relKey{db, oid}], lsn)
}

// became is what the relation that had a file was when it had it no more. It is not
// known if no names were stored since; gone tells that it is no more.
func (n *naming) became(db pg.Oid, r *RelationName) (now called, gone, known bool) {
	all := n.relations[relKey{db, r.Oid}]
	for i := len(all) - 2; i >= 0; i-- {
		if all[i].RelationName != nil && all[i].File == r.File {
			return all[i+1], all[i+1].RelationName == nil, true
		}
	}
	return called{}, false, false
}

// database names a database at an LSN; "" is unknown.
func (n *naming) database(oid pg.Oid, lsn pg.LSN) string {
	all := n.databases[oid]
	name := ""
	for _, d := range all {
		if d.from > lsn && name != "" {
			break
		}
		if d.name != "" {
			name = d.name
		}
	}
	return name
}
