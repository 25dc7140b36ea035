// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kbcli/kbcli/engine/pg"
)

// NamesObject is what a server's relations were called about when its log stood at LSN.
// One that is Full tells of all of them; the others of what had changed. One with
// Several holds more than one of these, of which LSN is the last.
type NamesObject struct {
	LSN      pg.LSN
	Timeline pg.TimelineID
	Full     bool
	Several  bool
	Size     int64 // bytes in the store; not set by writers
}

// maxNames bounds what the names of one object take when they are unpacked.
const maxNames = 256 << 20

func (l *Lineage) namesKey(o NamesObject) string {
	what := "part"
	switch {
	case o.Full:
		what = "full"
	case o.Several:
		what = "several"
	}
	return l.key("names", fmt.Sprintf("%016X-%08X-%s", uint64(o.LSN), uint32(o.Timeline), what))
}

// PutNames stores names; body is package catalog's encoding. Where there are others of
// that LSN already it is a *ConflictError.
func (l *Lineage) PutNames(ctx context.Context, o NamesObject, body []byte) error {
	if len(body) > maxNames {
		return fmt.Errorf("names take %d bytes, and %d are the most", len(body), int64(maxNames))
	}
	return l.repo.put(ctx, KindNames, l.namesKey(o), Compress(nil, body), 0)
}

// Names reads what PutNames stored.
func (l *Lineage) Names(ctx context.Context, o NamesObject) ([]byte, error) {
	key := l.namesKey(o)
	p, err := l.repo.get(ctx, KindNames, key)
	if err != nil {
		return nil, err
	}
	b, err := decompressOne(p, maxNames)
	if err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	return b, nil
}

// NamesObjects lists the names there are by LSN, a full one before parts, and several
// before one.
func (l *Lineage) NamesObjects(ctx context.Context) ([]NamesObject, error) {
	var out []NamesObject
	for info, err := range l.repo.store.List(ctx, l.key("names")+"/") {
		if err != nil {
			return nil, fmt.Errorf("list names: %w", err)
		}
		parts := strings.Split(info.Key[strings.LastIndexByte(info.Key, '/')+1:], "-")
		o := NamesObject{Size: info.Size}
		if len(parts) == 3 {
			lsn, _ := strconv.ParseUint(parts[0], 16, 64)
			tli, _ := strconv.ParseUint(parts[1], 16, 32)
			o.LSN, o.Timeline, o.Full, o.Several = pg.LSN(lsn), pg.TimelineID(tli), parts[2] == "full", parts[2] == "several"
		}
		if l.namesKey(o) != info.Key {
			return nil, &CorruptError{info.Key, "it is not a key of names"}
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b NamesObject) int {
		return cmp.Or(cmp.Compare(a.LSN, b.LSN), cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.rank(), b.rank()))
	})
	return out, nil
}

func (o NamesObject) rank() int {
	switch {
	case o.Full:
		return 0
	case o.Several:
		return 1
	}
	return 2
}

// DeleteNames removes names.
func (l *Lineage) DeleteNames(ctx context.Context, o NamesObject) error {
	return l.repo.store.Delete(ctx, l.namesKey(o))
}
