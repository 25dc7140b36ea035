// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
)

// Lineage is one line of one cluster's history.
type Lineage struct {
	repo *Repository
	info LineageInfo
}

// Info says whose history it is.
func (l *Lineage) Info() LineageInfo { return l.info }

// Repository is where it lies.
func (l *Lineage) Repository() *Repository { return l.repo }

// MismatchError says that a server is not the one whose history a lineage holds.
type MismatchError struct {
	Lineage LineageInfo
	Field   string
	Have    string // what the lineage says
	Got     string // what the server says
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("lineage %s belongs to another server: its %s is %s, the server's is %s", e.Lineage.ID, e.Field, e.Have, e.Got)
}

// Check fails with a *MismatchError unless a server with these properties is the
// one whose history this is. Writers call it before the first byte and after
// each reconnection.
func (l *Lineage) Check(id pg.SystemID, major int, seg pg.SegmentSize) error {
	mismatch := func(field string, have, got any) error {
		return &MismatchError{l.info, field, fmt.Sprint(have), fmt.Sprint(got)}
	}
	switch {
	case id != l.info.SystemID:
		return mismatch("system identifier", l.info.SystemID, id)
	case major != l.info.Major:
		return mismatch("PostgreSQL version", l.info.Major, major)
	case seg != l.info.SegmentSize:
		return mismatch("WAL segment size", l.info.SegmentSize, seg)
	}
	return nil
}

func (l *Lineage) key(parts ...string) string {
	return "lineages/" + l.info.ID + "/" + strings.Join(parts, "/")
}

func sortByCreated(ls []*Lineage) {
	slices.SortStableFunc(ls, func(a, b *Lineage) int { return a.info.Created.Compare(b.info.Created) })
}

// Gap is a stretch of WAL that will never come, from From on Timeline to To on
// ToTimeline: a restore cannot pass it.
type Gap struct {
	Timeline   pg.TimelineID `json:"timeline"`
	From       pg.LSN        `json:"from"`
	ToTimeline pg.TimelineID `json:"toTimeline"`
	To         pg.LSN        `json:"to"`
	Reason     string        `json:"reason"`
	Detected   time.Time     `json:"detected"`
}

// PutGap declares a gap.
func (l *Lineage) PutGap(ctx context.Context, g Gap) error {
	b, err := json.Marshal(g)
	if err != nil {
		return err
	}
	key := l.gapKey(g)
	err = l.repo.put(ctx, KindGap, key, b, 0)
	var conflict *ConflictError
	if errors.As(err, &conflict) {
		return nil // the same gap, declared before with another time or reason
	}
	return err
}

func (l *Lineage) gapKey(g Gap) string {
	return l.key("gap", fmt.Sprintf("%08X-%016X-%016X", uint32(g.Timeline), uint64(g.From), uint64(g.To)))
}

// Gaps lists the declared gaps by timeline and position.
func (l *Lineage) Gaps(ctx context.Context) ([]Gap, error) {
	var out []Gap
	for info, err := range l.repo.store.List(ctx, l.key("gap")+"/") {
		if err != nil {
			return nil, fmt.Errorf("list gaps: %w", err)
		}
		b, err := l.repo.get(ctx, KindGap, info.Key)
		if errors.Is(err, blob.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		var g Gap
		if err := json.Unmarshal(b, &g); err != nil {
			return nil, &CorruptError{info.Key, err.Error()}
		}
		if l.gapKey(g) != info.Key {
			return nil, &CorruptError{info.Key, "it describes another gap"}
		}
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.From, b.From))
	})
	return out, nil
}

// Beat says how far an idle server's clock got: every commit acknowledged to a
// client at or before Time lies before LSN on Timeline, and the repository
// holds the WAL up to LSN.
type Beat struct {
	Timeline pg.TimelineID `json:"timeline"`
	LSN      pg.LSN        `json:"lsn"`
	Time     time.Time     `json:"time"`
}

// PutBeat replaces the lineage's beat.
func (l *Lineage) PutBeat(ctx context.Context, b Beat) error {
	doc, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return l.repo.replace(ctx, KindBeat, l.key("beat"), doc)
}

// Beat reads the last beat; the zero Beat if there was none.
func (l *Lineage) Beat(ctx context.Context) (Beat, error) {
	var out Beat
	b, err := l.repo.get(ctx, KindBeat, l.key("beat"))
	if errors.Is(err, blob.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return Beat{}, &CorruptError{l.key("beat"), err.Error()}
	}
	return out, nil
}

// Limited is the lineage with the bytes of what is stored through it kept to up a second,
// and of what is read to down: those of each Limited by themselves. 0 is no limit.
func (l *Lineage) Limited(up, down int64) *Lineage {
	if up <= 0 && down <= 0 {
		return l
	}
	r := *l.repo
	r.store = blob.Limit(r.store, up, down)
	return &Lineage{repo: &r, info: l.info}
}
