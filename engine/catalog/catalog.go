// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Catalog is a snapshot of what a lineage holds. Its methods may be called at once.
type Catalog struct {
	l         *repository.Lineage
	manifests []*repository.Manifest
	absent    []Absent
	gaps      []repository.Gap
	histories map[pg.TimelineID]pg.History
	damaged   map[pg.TimelineID]error // histories that cannot be read

	mu      sync.Mutex
	inv     *inventory
	beat    repository.Beat
	indexes map[pg.Segment]*walindex.Index
	held    int // transactions in them
	details map[pg.Segment]*walindex.Index

	chapters chapters
	passed   []error // chapters that are damaged
}

// Load takes a snapshot. Damaged manifests, gaps, histories and a damaged beat are
// left out and named in the error, which then comes with a Catalog of the rest. Any
// other error comes with none.
func Load(ctx context.Context, l *repository.Lineage) (*Catalog, error) {
	c := &Catalog{
		l: l, histories: map[pg.TimelineID]pg.History{}, damaged: map[pg.TimelineID]error{},
		indexes: map[pg.Segment]*walindex.Index{},
	}
	var err error
	var bad []error
	// tolerate keeps damage for the end
	tolerate := func(err error) error {
		if isDamage(err) {
			bad = append(bad, err)
			return nil
		}
		return err
	}
	if c.inv, err = loadInventory(ctx, l); err != nil {
		return nil, err
	}
	if c.gaps, err = l.Gaps(ctx); tolerate(err) != nil {
		return nil, err
	}
	if c.beat, err = l.Beat(ctx); tolerate(err) != nil {
		return nil, err
	}
	tlis, err := l.Histories(ctx)
	if err != nil {
		return nil, err
	}
	for _, tli := range tlis {
		content, err := l.History(ctx, tli)
		if tolerate(err) != nil {
			return nil, err
		}
		if err == nil {
			if c.histories[tli], err = pg.ParseHistory(tli, content); err != nil {
				bad = append(bad, err)
				delete(c.histories, tli)
			}
		}
		if err != nil {
			c.damaged[tli] = fmt.Errorf("the way to timeline %s cannot be read: %w", tli, err)
		}
	}
	all, err := l.Manifests(ctx)
	if tolerate(err) != nil {
		return nil, err
	}
	c.sort(all)
	return c, errors.Join(bad...)
}

// sort tells the backups that can be restored from the snapshots that are elsewhere.
func (c *Catalog) sort(all []*repository.Manifest) {
	for _, m := range all {
		var absent *repository.AbsentError
		if errors.As(c.l.Repository().Reach(m), &absent) {
			c.absent = append(c.absent, Absent{m, absent})
			continue
		}
		c.manifests = append(c.manifests, m)
	}
}

// isDamage tells that something is stored and is not what it should be.
func isDamage(err error) bool {
	var object *repository.CorruptError
	var wal *walscan.CorruptError
	return errors.As(err, &object) || errors.As(err, &wal)
}

// Lineage is what the Catalog is of.
func (c *Catalog) Lineage() *repository.Lineage { return c.l }

// Backups are all backups that can be reached, by the time they ended.
func (c *Catalog) Backups() []*repository.Manifest { return c.manifests }

// Absent is a snapshot that is listed and cannot be reached from here, and why.
type Absent struct {
	*repository.Manifest
	Err *repository.AbsentError
}

// Absent are the snapshots that cannot be reached: nothing can be restored from them.
// They may come back, as a disk that is mounted late.
func (c *Catalog) Absent() []Absent { return c.absent }

// noBackup says why there is no backup of a name.
func (c *Catalog) noBackup(name string) error {
	for _, a := range c.absent {
		if a.Name == name {
			return a.Err
		}
	}
	return &NoBackupError{name}
}

// Gaps are the declared gaps.
func (c *Catalog) Gaps() []repository.Gap { return c.gaps }

// Grow tells that the repository now holds all WAL of tli before lsn from where
// this Catalog ended, or from its last gap, and that every commit acknowledged by proven is before it. What
// is before that end already says nothing new, and a timeline that the Catalog has no
// history of is left out: after a switch of timelines, and after a gap, Load again.
func (c *Catalog) Grow(tli pg.TimelineID, lsn pg.LSN, proven time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := c.inv.size
	n := size.Number(lsn)
	from, ok := c.inv.end(tli)
	for _, g := range c.gaps { // what follows the newest may not be there yet
		if g.ToTimeline == tli && g.To <= lsn && (!ok || size.Number(g.To) > from) {
			from, ok = size.Number(g.To), true
		}
	}
	if _, known := c.histories[tli]; !ok && !known && tli != 1 {
		return
	}
	if ok && from < n {
		c.inv.addSpan(tli, span{from, n})
	}
	if g := (pg.Segment{Timeline: tli, Number: n}); size.Offset(lsn) > 0 && lsn > c.inv.tails[g] {
		c.inv.tails[g] = lsn
	}
	if proven.After(c.beat.Time) {
		c.beat = repository.Beat{Timeline: tli, LSN: lsn, Time: proven}
	}
}

// Path is the way that leads to timeline tli; 0 is the newest of which there is WAL.
func (c *Catalog) Path(tli pg.TimelineID) (Path, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.path(tli)
}

func (c *Catalog) path(tli pg.TimelineID) (Path, error) {
	if tli == 0 {
		all := c.inv.timelines()
		if len(all) == 0 {
			return Path{pg.History{Timeline: 1}, c.inv.size}, nil
		}
		tli = all[len(all)-1]
	}
	if err := c.damaged[tli]; err != nil {
		return Path{}, err
	}
	if h, ok := c.histories[tli]; ok {
		return Path{h, c.inv.size}, nil
	}
	if tli != 1 && !slices.Contains(c.inv.timelines(), tli) {
		return Path{}, &NoTimelineError{tli}
	}
	return Path{pg.History{Timeline: tli}, c.inv.size}, nil
}

// Window is a stretch of time, every moment of which can be gone back to.
type Window struct {
	Timeline pg.TimelineID `json:"timeline"` // at its end
	Backup   string        `json:"backup"`   // the first that it can be reached from
	From     time.Time     `json:"from"`
	To       time.Time     `json:"to"`
	FromLSN  pg.LSN        `json:"fromLSN"`
	ToLSN    pg.LSN        `json:"toLSN"`
}

// Contains tells whether t lies in the window; both ends do. Where the server's clock
// was set back From is the earliest end of a backup in it.
func (w Window) Contains(t time.Time) bool { return !t.Before(w.From) && !t.After(w.To) }

// Windows lists the windows on the path to tli, oldest first.
func (c *Catalog) Windows(ctx context.Context, tli pg.TimelineID) ([]Window, error) {
	p, err := c.Path(tli)
	if err != nil {
		return nil, err
	}
	var out []Window
	// by position: clocks may have been set back between two backups
	inOrder := slices.Clone(c.manifests)
	slices.SortStableFunc(inOrder, func(a, b *repository.Manifest) int { return cmp.Compare(a.StopLSN, b.StopLSN) })
	for _, m := range inOrder {
		if !p.owns(m.Timeline, m.StartLSN, m.StopLSN) {
			continue
		}
		end := c.reach(p, m)
		if end < m.StopLSN {
			continue // some WAL of the backup itself is gone
		}
		if n := len(out); n > 0 && out[n-1].ToLSN >= m.StopLSN {
			if w := &out[n-1]; m.StopTime.Before(w.From) && end >= w.ToLSN {
				w.From = m.StopTime // within a window, after the clock was set back
			}
			continue
		}
		w := Window{
			Timeline: p.TimelineAt(max(end, 1) - 1), Backup: m.Name,
			From: m.StopTime, FromLSN: m.StopLSN, ToLSN: end,
		}
		if w.To, err = c.endTime(ctx, p, m, end); err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

// reach is how far the WAL goes on from the start of a backup.
func (c *Catalog) reach(p Path, m *repository.Manifest) pg.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.reach(c.inv, m.StartLSN)
}

// endTime is the latest time up to which every acknowledged commit lies before end:
// that of the last commit, or what an idle server's clock proved.
func (c *Catalog) endTime(ctx context.Context, p Path, m *repository.Manifest, end pg.LSN) (time.Time, error) {
	t := m.StopTime
	c.mu.Lock()
	beat := c.beat
	c.mu.Unlock()
	if p.TimelineAt(max(beat.LSN, 1)-1) == beat.Timeline && beat.LSN <= end && beat.LSN >= m.StopLSN && beat.Time.After(t) {
		t = beat.Time
	}
	if beat.LSN == end && !t.Before(beat.Time) && beat.Time.After(m.StopTime) {
		return t, nil // the archive itself told: no commit before end is later
	}
	// the last segment in which a transaction ended tells the rest
	for n := c.inv.size.Number(max(end, 1) - 1); ; n-- {
		x, err := c.briefly(ctx, p, n, end, func(s *chapter.Segment) bool { return !s.Committed })
		if errors.Is(err, repository.ErrSealed) {
			return t, nil // this host cannot read what it archives
		}
		found := false
		switch {
		case isDamage(err):
			x = &walindex.Index{} // what lies before it can be reached all the same
		case err != nil:
			return t, err
		}
		for _, tx := range x.Transactions {
			if tx.End <= end && tx.Start >= m.StopLSN && tx.Kind.Committed() {
				found = true
				if at := tx.Time.Time(); at.After(t) {
					t = at
				}
			}
		}
		if found || n <= c.inv.size.Number(m.StopLSN) {
			return t, nil
		}
	}
}
