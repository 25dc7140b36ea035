// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/wire"
)

// namesPart is what Names.Encode made, and where the log stood then.
type namesPart struct {
	lsn  pg.LSN
	body []byte
}

const severalMagic = "NS"

// maxSeveral is about how long the parts are that are put together in one object.
const maxSeveral = 1 << 20

// encodeSeveral puts parts together, in order, as FORMAT.md of package repository draws them.
func encodeSeveral(parts []namesPart) []byte {
	b := binary.AppendUvarint([]byte(severalMagic), uint64(len(parts)))
	before := pg.LSN(0)
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(p.lsn-before))
		b = append(binary.AppendUvarint(b, uint64(len(p.body))), p.body...)
		before = p.lsn
	}
	return b
}

// decodeSeveral reads what encodeSeveral wrote.
func decodeSeveral(b []byte) ([]namesPart, error) {
	if len(b) < 2 || string(b[:2]) != severalMagic {
		return nil, errors.New("several names do not begin as such")
	}
	c := wire.Reader{B: b[2:]}
	var out []namesPart
	at := pg.LSN(0)
	for range c.Count(2) {
		at += pg.LSN(c.Uvarint())
		out = append(out, namesPart{at, c.Bytes(c.Uvarint())})
	}
	if err := c.Done(); err != nil {
		return nil, fmt.Errorf("several names: %w", err)
	}
	return out, nil
}

// readParts reads one object. What cannot be read is a *repository.CorruptError.
func readParts(ctx context.Context, l *repository.Lineage, o repository.NamesObject) ([]namesPart, error) {
	b, err := l.Names(ctx, o)
	if err != nil {
		return nil, err
	}
	if !o.Several {
		return []namesPart{{o.LSN, b}}, nil
	}
	parts, err := decodeSeveral(b)
	if err != nil {
		return nil, &repository.CorruptError{Key: fmt.Sprintf("names %s", o.LSN), Reason: err.Error()}
	}
	return parts, nil
}

// MergeNames puts parts together that follow each other, where there are at least min
// of them, so that who reads a history reads few objects. Nothing of what they say is
// lost. may is asked before each change. Interrupted, it is done by the next; what cannot
// be read is left as it is.
func MergeNames(ctx context.Context, l *repository.Lineage, min int, may func() error) error {
	all, err := l.NamesObjects(ctx)
	if err != nil {
		return err
	}
	var run []repository.NamesObject // parts, of one timeline, with no full one between
	for i, o := range all {
		if !o.Full {
			run = append(run, o)
		}
		if i+1 < len(all) && !all[i+1].Full && all[i+1].Timeline == o.Timeline {
			continue
		}
		if err := mergeRun(ctx, l, run, min, may); err != nil {
			return err
		}
		run = nil
	}
	return nil
}

func mergeRun(ctx context.Context, l *repository.Lineage, run []repository.NamesObject, min int, may func() error) error {
	loose := 0
	for _, o := range run {
		if !o.Several {
			loose++
		}
	}
	if loose < min {
		return nil
	}
	var parts []namesPart
	var from []repository.NamesObject
	length := 0
	put := func() error {
		defer func() { parts, from, length = nil, nil, 0 }()
		if len(from) < 2 {
			return nil
		}
		return replaceNames(ctx, l, from, parts, may)
	}
	for _, o := range run {
		got, err := readParts(ctx, l, o)
		if unreadable(err) {
			if err := put(); err != nil { // what cannot be read parts them
				return err
			}
			continue
		}
		if err != nil {
			if errors.Is(err, blob.ErrNotExist) {
				return nil // somebody else does it
			}
			return err
		}
		for _, p := range got {
			i, found := slices.BinarySearchFunc(parts, p.lsn, func(q namesPart, lsn pg.LSN) int { return int(int64(q.lsn) - int64(lsn)) })
			if !found {
				parts = slices.Insert(parts, i, p)
				length += len(p.body)
			}
		}
		if from = append(from, o); length >= maxSeveral {
			if err := put(); err != nil {
				return err
			}
		}
	}
	return put()
}

// replaceNames stores parts, and deletes the objects that they are from.
func replaceNames(ctx context.Context, l *repository.Lineage, from []repository.NamesObject, parts []namesPart, may func() error) error {
	o := repository.NamesObject{LSN: parts[len(parts)-1].lsn, Timeline: from[0].Timeline, Several: true}
	is := func(f repository.NamesObject) bool { return f.Several && f.LSN == o.LSN }
	if !slices.ContainsFunc(from, is) { // else it was stored, and the rest was not deleted
		if err := may(); err != nil {
			return err
		}
		if err := l.PutNames(ctx, o, encodeSeveral(parts)); err != nil {
			return fmt.Errorf("store names: %w", err)
		}
	}
	// the newest first: a reader takes what is left in order, and then the rest
	for _, f := range slices.Backward(from) {
		if is(f) {
			continue
		}
		if err := may(); err != nil {
			return err
		}
		if err := l.DeleteNames(ctx, f); err != nil {
			return fmt.Errorf("delete names: %w", err)
		}
	}
	return nil
}
