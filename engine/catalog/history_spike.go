// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// What is unusual: a minute with so much WAL, and so many times what is usual. Usual is
// the median of the minutes of the hour before, and not known before so many of them are.
// A burst that lasts longer than half of that hour becomes what is usual.
const (
	spikeFloor  = 64 << 20
	spikeFactor = 8
	spikeHour   = 60
	spikeKnown  = 10
)

// spikeReach is how many segments before a history are looked at for what is usual.
const spikeReach = 128

// maxSpikeRows bounds how many relations are counted in one spike.
const maxSpikeRows = 4096

// Spike is a burst of minutes that follow each other, each with far more WAL than is
// usual. Minutes are those of the transactions' stamps; what was written while none
// ended counts to the minute of the next.
type Spike struct {
	From    time.Time `json:"from"` // when its first minute began
	Minutes int       `json:"minutes"`
	Bytes   uint64    `json:"bytes"` // of WAL, in all of them
	Usual   uint64    `json:"usual"` // bytes of WAL a minute, before it
}

// spikes looks for them.
type spikes struct {
	growing bool // a spike at the end of what there is goes on, perhaps, and is told when it is over

	begun  bool
	minute int64  // since 1970, that is counted now
	whole  bool   // it was seen from its beginning
	mark   pg.LSN // where it begins in the log
	end    pg.LSN // of the last transaction
	last   time.Time
	past   []uint64 // bytes of the minutes before, at most spikeHour
	rows   map[pg.RelFileLocator]uint64
	burst  *burst
}

// burst is a spike that may go on.
type burst struct {
	Spike
	last time.Time
	rows map[pg.RelFileLocator]uint64
}

func minuteOf(t time.Time) int64 { return t.Unix() / 60 }

// add counts the end of a transaction. It gives back a spike that was over before.
func (s *spikes) add(tx *walindex.Transaction) (over *burst) {
	if tx.End <= s.end {
		return nil // it was seen
	}
	at := tx.Time.Time()
	if !s.begun {
		s.begun, s.minute, s.mark = true, minuteOf(at), tx.Start
	}
	over = s.to(minuteOf(at))
	s.end, s.last = tx.End, at
	if tx.Changes != nil {
		if s.rows == nil {
			s.rows = map[pg.RelFileLocator]uint64{}
		}
		for _, r := range tx.Changes.Rows {
			if _, ok := s.rows[r.Rel]; ok || len(s.rows) < maxSpikeRows {
				s.rows[r.Rel] += r.Inserted + r.Updated + r.Deleted
			}
		}
	}
	return over
}

// to ends the minutes before another. A clock that was set back does not begin one.
func (s *spikes) to(minute int64) (over *burst) {
	if !s.begun || minute <= s.minute {
		return nil
	}
	if s.whole {
		over = s.judge(uint64(s.end - s.mark))
	}
	idle := minute - s.minute - 1
	for range min(idle, spikeHour) {
		if o := s.judge(0); o != nil {
			over = o
		}
	}
	s.minute, s.whole, s.mark, s.rows = minute, true, max(s.end, s.mark), nil
	return over
}

// judge takes the minute that ended.
func (s *spikes) judge(bytes uint64) (over *burst) {
	if usual, known := s.usual(); known && bytes >= max(spikeFloor, spikeFactor*usual) {
		if s.burst == nil {
			s.burst = &burst{Spike: Spike{From: time.Unix(s.minute*60, 0).UTC(), Usual: usual}, rows: map[pg.RelFileLocator]uint64{}}
		}
		b := s.burst
		b.Minutes++
		b.Bytes += bytes
		b.last = s.last
		for rel, n := range s.rows {
			if _, ok := b.rows[rel]; ok || len(b.rows) < maxSpikeRows {
				b.rows[rel] += n
			}
		}
	} else {
		over, s.burst = s.burst, nil
	}
	if s.past = append(s.past, bytes); len(s.past) > spikeHour {
		s.past = s.past[1:]
	}
	return over
}

// usual is the median of the hour before.
func (s *spikes) usual() (uint64, bool) {
	if len(s.past) < spikeKnown {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(s.past))
	return sorted[len(sorted)/2], true
}

// stop ends what is known for certain when the log has a hole.
func (s *spikes) stop() (over *burst) {
	over = s.burst
	*s = spikes{growing: s.growing, end: s.end}
	return over
}

// usually looks at what was before segment first.
func (h *historian) usually(ctx context.Context, first, earliest uint64) error {
	if h.spikes.begun {
		return nil
	}
	from := earliest
	if first > spikeReach {
		from = max(from, first-spikeReach)
	}
	if since := h.q.Since; !since.IsZero() && from < first {
		at, err := h.c.firstSince(ctx, h.p, since.Add(-spikeHour*time.Minute), from, first-1)
		switch {
		case err == nil:
			from = at
		case !unreadable(err):
			return err
		}
	}
	return h.c.eachIndex(ctx, h.p, from, first, h.c.inv.size.Start(first), never, func(_ uint64, x *walindex.Index, err error) error {
		if unreadable(err) {
			h.spikes.stop()
			return nil
		}
		if err != nil {
			return err
		}
		for i := range x.Transactions {
			if x.Transactions[i].Kind.Ends() {
				h.spikes.add(&x.Transactions[i])
			}
		}
		return nil
	})
}

// count counts a transaction for spikes.
func (h *historian) count(tx *walindex.Transaction) {
	s := h.spikes
	if s == nil || h.ended {
		return
	}
	if g := h.q.Going; g != nil && tx.Start >= g.Next && tx.Time.Time().After(g.Settled) {
		h.ended = true
		return
	}
	if b := s.add(tx); b != nil {
		h.spike(tx.Start, b)
	}
}

// endSpikes tells of a spike at the end of the log.
func (h *historian) endSpikes() {
	s := h.spikes
	if s == nil {
		return
	}
	var b *burst
	if h.q.Going != nil && !h.ended {
		b = s.to(minuteOf(h.q.Going.Settled))
	}
	if b == nil && !s.growing {
		if b = s.to(s.minute + 1); b == nil {
			b = s.burst
		}
	}
	if b != nil {
		h.spike(s.end, b)
	}
}

// spike tells of one, and of the table that had most of it.
func (h *historian) spike(lsn pg.LSN, b *burst) {
	e := Event{LSN: lsn, Time: b.last, Kind: EventSpike, What: "spike", Rows: -1, Spike: &b.Spike}
	var most uint64
	var of pg.RelFileLocator
	for rel, n := range b.rows {
		if rel.DB == 0 || rel.Rel < firstNormalOid || n < most || n == most && rel.Rel >= of.Rel {
			continue
		}
		if r := h.names.file(rel, lsn); r != nil && (r.ours() || !isTable(r.Kind)) {
			continue
		}
		most, of = n, rel
	}
	if most > 0 {
		e.Rows, e.Database, e.Table = int64(most), h.databaseName(of.DB, lsn), of.String()
		if r := h.names.file(of, lsn); r != nil {
			e.Schema, e.Table, e.Object = r.Schema, r.Name, r.Kind
		}
	}
	h.add(e)
}
