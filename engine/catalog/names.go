// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/internal/wire"
)

// Names are what a server's databases and relations are called at one moment: the log
// tells numbers only.
type Names struct {
	Time      time.Time
	Databases []DatabaseNames // all there are, by Oid
}

// DatabaseNames are the names in one database.
type DatabaseNames struct {
	Oid, Spc pg.Oid // Spc is its default tablespace
	Name     string
	// Told says whether Relations are all that there are. If not, and Part is set, they
	// are those that changed since the Names before, and Gone are those that are no more.
	Told, Part bool
	Relations  []RelationName // by Oid
	Gone       []pg.Oid       // ascending
}

// RelationName is what one relation is called.
type RelationName struct {
	Oid          pg.Oid
	File         pg.Oid // 0 for what has none
	Spc          pg.Oid
	Owner        pg.Oid // the table of an index, a TOAST table or a column's sequence; else 0
	Kind         byte   // pg_class.relkind
	Rows         int64  // as the server guesses; -1: unknown
	Schema, Name string
}

const namesMagic = "N1"

// Encode writes names as FORMAT.md of package repository draws them.
func (n *Names) Encode() []byte {
	b := binary.AppendVarint([]byte(namesMagic), n.Time.UnixMicro())
	b = binary.AppendUvarint(b, uint64(len(n.Databases)))
	for i := range n.Databases {
		b = n.Databases[i].append(b)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (d *DatabaseNames) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(d.Oid))
	b = binary.AppendUvarint(b, uint64(d.Spc))
	b = appendText(b, d.Name)
	told := byte(0)
	switch {
	case d.Told:
		told = 1
	case d.Part:
		told = 2
	}
	b = append(b, told)
	b = binary.AppendUvarint(b, uint64(len(d.Relations)))
	before := pg.Oid(0)
	for i := range d.Relations {
		r := &d.Relations[i]
		b = binary.AppendUvarint(b, uint64(r.Oid-before))
		before = r.Oid
		for _, v := range [...]pg.Oid{r.File, r.Spc, r.Owner} {
			b = binary.AppendUvarint(b, uint64(v))
		}
		b = append(b, r.Kind)
		b = binary.AppendVarint(b, r.Rows)
		b = appendText(appendText(b, r.Schema), r.Name)
	}
	b = binary.AppendUvarint(b, uint64(len(d.Gone)))
	before = 0
	for _, oid := range d.Gone {
		b = binary.AppendUvarint(b, uint64(oid-before))
		before = oid
	}
	return b
}

// DecodeNames reads what Encode wrote.
func DecodeNames(b []byte) (*Names, error) {
	if len(b) < 2 || string(b[:2]) != namesMagic {
		return nil, errors.New("names do not begin as such")
	}
	c := wire.Reader{B: b[2:]}
	n := &Names{Time: time.UnixMicro(c.Varint()).UTC()}
	for range c.Count(6) {
		d := DatabaseNames{Oid: pg.Oid(c.U32()), Spc: pg.Oid(c.U32()), Name: string(c.Bytes(c.Uvarint()))}
		told := c.U8()
		if told > 2 {
			c.Fail("it is not known what is told of a database")
		}
		d.Told, d.Part = told == 1, told == 2
		before := pg.Oid(0)
		count := c.Count(8)
		if count > 0 {
			d.Relations = make([]RelationName, 0, count)
		}
		for range count {
			r := RelationName{Oid: before + pg.Oid(c.U32()), File: pg.Oid(c.U32()), Spc: pg.Oid(c.U32()), Owner: pg.Oid(c.U32()), Kind: c.U8(), Rows: c.Varint()}
			r.Schema, r.Name = string(c.Bytes(c.Uvarint())), string(c.Bytes(c.Uvarint()))
			before = r.Oid
			d.Relations = append(d.Relations, r)
		}
		before = 0
		for range c.Count(1) {
			before += pg.Oid(c.U32())
			d.Gone = append(d.Gone, before)
		}
		n.Databases = append(n.Databases, d)
	}
	if err := c.Done(); err != nil {
		return nil, fmt.Errorf("names: %w", err)
	}
	return n, nil
}

// sort puts everything in the order that Encode needs.
func (n *Names) sort() {
	slices.SortFunc(n.Databases, func(a, b DatabaseNames) int { return cmp.Compare(a.Oid, b.Oid) })
	for i := range n.Databases {
		slices.SortFunc(n.Databases[i].Relations, func(a, b RelationName) int { return cmp.Compare(a.Oid, b.Oid) })
	}
}

// Since gives of n what differs from old, to be stored after it. Of a database that n
// tells nothing of nothing changed. It is nil if nothing did: a few rows more or less
// do not count.
func (n *Names) Since(old *Names) *Names {
	n.sort()
	out := &Names{Time: n.Time}
	changed := len(n.Databases) != len(old.Databases)
	for i := range n.Databases {
		d := &n.Databases[i]
		o := old.database(d.Oid)
		switch {
		case o == nil:
			changed = true
			out.Databases = append(out.Databases, *d)
			continue
		case o.Name != d.Name || o.Spc != d.Spc:
			changed = true
		}
		part := DatabaseNames{Oid: d.Oid, Spc: d.Spc, Name: d.Name}
		switch {
		case d.Told && o.Told:
			part.Part = true
			part.difference(o, d)
			changed = changed || len(part.Relations)+len(part.Gone) > 0
		case d.Told:
			part, changed = *d, true
		}
		out.Databases = append(out.Databases, part)
	}
	if !changed {
		return nil
	}
	return out
}

func (n *Names) database(oid pg.Oid) *DatabaseNames {
	for i := range n.Databases {
		if n.Databases[i].Oid == oid {
			return &n.Databases[i]
		}
	}
	return nil
}

// grown tells whether a relation is thought to have another size than before.
func (r *RelationName) grown(o *RelationName) bool {
	a, b := max(r.Rows, 0), max(o.Rows, 0)
	return a > b+b/10+1000 || b > a+a/10+1000 || (a == 0) != (b == 0)
}

// same tells whether two have the same name and file.
func (r *RelationName) same(o *RelationName) bool {
	a, b := *r, *o
	a.Rows, b.Rows = 0, 0
	return a == b
}

// difference finds in d the relations of now that are not in before, and those that are gone.
func (d *DatabaseNames) difference(before, now *DatabaseNames) {
	i := 0
	for k := range now.Relations {
		r := &now.Relations[k]
		for i < len(before.Relations) && before.Relations[i].Oid < r.Oid {
			d.Gone = append(d.Gone, before.Relations[i].Oid)
			i++
		}
		if i < len(before.Relations) && before.Relations[i].Oid == r.Oid {
			if !r.same(&before.Relations[i]) || r.grown(&before.Relations[i]) {
				d.Relations = append(d.Relations, *r)
			}
			i++
			continue
		}
		d.Relations = append(d.Relations, *r)
	}
	for ; i < len(before.Relations); i++ {
		d.Gone = append(d.Gone, before.Relations[i].Oid)
	}
}

// Keep takes over from old what n does not tell, so that n can be compared with later.
func (n *Names) Keep(old *Names) {
	for i := range n.Databases {
		d := &n.Databases[i]
		if o := old.database(d.Oid); o != nil && !d.Told {
			d.Told, d.Relations = o.Told, o.Relations
		}
	}
}
