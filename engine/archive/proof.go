// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/replication"
)

// proofChain turns keepalives into a proof that nothing happened. A walsender
// puts its position and its clock into a keepalive, in that order, so that one
// alone proves nothing: a commit may fall between. But between two answers to two
// questions it has looked for new WAL and sent it. Of three keepalives with one
// position and no WAL among them at least two were such answers, or the
// walsender looked after it sent the first for another reason: so all that was
// durable at the first one's clock had been sent.
type proofChain struct {
	lsn   pg.LSN
	times []pg.Timestamp
}

func (c *proofChain) reset() { c.times = c.times[:0] }

// add takes a keepalive while WAL was received up to lsn, and gives the proven
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
