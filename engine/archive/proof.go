// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/replication"
)

// proofChain turns keepalives into a proof that nothing happened. A walsender that
// answers a question puts its position and its clock into a keepalive without
// looking for new WAL between the two, so that one alone proves nothing: a commit
// may fall between. But it looks for WAL, and sends it, before it waits for the
// next question. So the second of two answers with one position, and no WAL
// between them, proves that all that was durable at the first one's clock had been
// sent, if the second question was asked when the first was answered: two that
// wait together are answered together. A walsender that is put to sleep between
// sending an answer and looking for input can find the next question there before
// it looks for WAL; hence three.
type proofChain struct {
	lsn   pg.LSN
	times []pg.Timestamp
}

func (c *proofChain) reset() { c.times = c.times[:0] }

// add takes an answer while WAL was received up to lsn, and gives the proven
// time once there is one.
func (c *proofChain) add(k *replication.Keepalive, lsn pg.LSN) (pg.Timestamp, bool) {
	if k.ServerEnd != lsn {
		c.reset()
		return 0, false
	}
	if lsn != c.lsn {
		c.reset()
		c.lsn = lsn
	}
	c.times = append(c.times, k.ServerTime)
	if len(c.times) < 3 {
		return 0, false
	}
	t := c.times[0]
	c.times = append(c.times[:0], c.times[1:]...)
	return t, true
}

// maxProofs bounds the proofs that wait for the repository to catch up.
const maxProofs = 64

// proven notes a proof; it counts once the repository holds its position.
func (a *Archiver) proven(p proof) {
	a.update(func(st *Status) {
		if n := len(a.proofs); n > 0 && a.proofs[n-1].place == p.place {
			a.proofs[n-1].time = p.time
		} else {
			if n >= maxProofs {
				a.proofs = a.proofs[1:]
			}
			a.proofs = append(a.proofs, p)
		}
		a.settle(st)
	})
}

// settle moves Proven up to what the repository's position allows. a.mu is held.
func (a *Archiver) settle(st *Status) {
	for len(a.proofs) > 0 {
		p := a.proofs[0]
		if p.tli > st.RepositoryTimeline || p.tli == st.RepositoryTimeline && p.lsn > st.Repository {
			return
		}
		if p.time.After(st.Proven) {
			st.Proven = p.time
		}
		if p.tli == st.RepositoryTimeline && len(a.proofs) == 1 && p.lsn == st.Repository {
			return // its time may still grow
		}
		a.proofs = a.proofs[1:]
	}
}

// idleSince tells whether the repository holds all there is, and what time that is
// proven for.
func (a *Archiver) idleSince() (place, time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := place{a.st.RepositoryTimeline, a.st.Repository}
	idle := a.st.Timeline == at.tli && a.st.Received == at.lsn && at.lsn != 0
	return at, a.st.Proven, idle && !a.st.Proven.IsZero()
}
