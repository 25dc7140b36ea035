// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// tombstone is the JSON of Marks in the repository: see FORMAT.md there.
type tombstone struct {
	Seen      time.Time     `json:"seen"`
	Elapsed   time.Duration `json:"elapsed"`
	Backups   []namedMark   `json:"backups,omitempty"`
	WAL       []walMark     `json:"wal,omitempty"`
	Leftovers []namedMark   `json:"leftovers,omitempty"`
}

type namedMark struct {
	Name  string        `json:"name"`
	Since time.Time     `json:"since"`
	At    time.Duration `json:"at"`
}

type walMark struct {
	Timeline pg.TimelineID `json:"timeline"`
	From     pg.LSN        `json:"from"`
	To       pg.LSN        `json:"to"`
	Since    time.Time     `json:"since"`
	At       time.Duration `json:"at"`
}

// LoadMarks reads what is marked in a lineage. A *repository.CorruptError comes with
// no marks, and is as if nothing were marked: all of it begins anew.
func LoadMarks(ctx context.Context, l *repository.Lineage) (Marks, error) {
	b, err := l.Tombstone(ctx)
	if errors.Is(err, blob.ErrNotExist) {
		return Marks{}, nil
	}
	if err != nil {
		return Marks{}, err
	}
	var t tombstone
	if err := json.Unmarshal(b, &t); err != nil {
		return Marks{}, damaged(err.Error())
	}
	return t.marks(l.Info().SegmentSize)
}

func damaged(why string) error { return &repository.CorruptError{Key: "tombstone", Reason: why} }

func (t *tombstone) marks(size pg.SegmentSize) (Marks, error) {
	m := Marks{Seen: t.Seen, Elapsed: t.Elapsed}
	wrong := func(at time.Duration) bool { return at < 0 || at > t.Elapsed }
	named := func(list []namedMark) (map[string]Mark, error) {
		out := map[string]Mark{}
		for _, k := range list {
			if _, twice := out[k.Name]; twice || wrong(k.At) {
				return nil, damaged(fmt.Sprintf("the mark of %q is there twice, or from the future", k.Name))
			}
			out[k.Name] = Mark{k.Since, k.At}
		}
		return out, nil
	}
	var err error
	if m.Backups, err = named(t.Backups); err != nil {
		return Marks{}, err
	}
	if m.Leftovers, err = named(t.Leftovers); err != nil {
		return Marks{}, err
	}
	for _, w := range t.WAL {
		r := Run{w.Timeline, size.Number(w.From), size.Number(w.To)}
		if n := len(m.WAL); wrong(w.At) || r.From >= r.To || size.Start(r.From) != w.From || size.Start(r.To) != w.To ||
			n > 0 && cmp.Or(cmp.Compare(m.WAL[n-1].Timeline, r.Timeline), cmp.Compare(m.WAL[n-1].To, r.From)) > 0 {
			return Marks{}, damaged(fmt.Sprintf("the mark of WAL from %s to %s is no run of segments, or out of order", w.From, w.To))
		}
		m.WAL = append(m.WAL, MarkedRun{r, Mark{w.Since, w.At}})
	}
	return m, nil
}

// SaveMarks makes marks durable. The caller holds the lineage's lock.
func SaveMarks(ctx context.Context, l *repository.Lineage, m Marks) error {
	utc := func(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
	named := func(marks map[string]Mark) (out []namedMark) {
		for name, k := range marks {
			out = append(out, namedMark{name, utc(k.Since), k.At})
		}
		slices.SortFunc(out, func(a, b namedMark) int { return cmp.Compare(a.Name, b.Name) })
		return out
	}
	size := l.Info().SegmentSize
	t := tombstone{Seen: utc(m.Seen), Elapsed: m.Elapsed, Backups: named(m.Backups), Leftovers: named(m.Leftovers)}
	for _, w := range m.WAL {
		t.WAL = append(t.WAL, walMark{w.Timeline, size.Start(w.From), size.Start(w.To), utc(w.Since), w.At})
	}
	b, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return err
	}
	if err := l.PutTombstone(ctx, b); err != nil {
		return fmt.Errorf("mark what is to go: %w", err)
	}
	return nil
}
