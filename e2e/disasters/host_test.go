// SPDX-License-Identifier: Apache-2.0

package disasters

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
)

// mostLost is how much time of acknowledged commits a lost host may cost.
const mostLost = 2 * time.Second

func TestHostLost(t *testing.T) {
	for name, sync := range map[string]bool{"async": false, "sync": true} {
		t.Run(name, func(t *testing.T) {
			rounds := 2
			if long() {
				rounds = 5
			}
			var lost []time.Duration
			for i := range rounds {
				// a busy server's segments fill quickly; a quiet one's commits wait for tails
				pause := time.Duration(0)
				if i%2 == 1 {
					pause = 20 * time.Millisecond
				}
				lost = append(lost, loseHost(t, sync, pause))
			}
			slices.Sort(lost)
			median := lost[len(lost)/2]
			t.Logf("acknowledged commits were lost of the last %v; median %s", lost, median)
			switch {
			case sync && lost[len(lost)-1] > 0:
				t.Error("an acknowledged commit was lost in sync mode")
			case median > mostLost:
				t.Errorf("%s of acknowledged commits were lost, %s are allowed", median, mostLost)
			}
		})
	}
}

// loseHost gives how long before the fault the first commit was acknowledged that is lost.
func loseHost(t *testing.T, sync bool, pause time.Duration) (lost time.Duration) {
	r := newRig(t, sync, nil)
	load := begin(t, r.server, 4, pause)
	time.Sleep(3*time.Second + rand.N(time.Second)) // tails have a rhythm
	at := r.lose(t)
	entries := load.end(t)
	c, err := catalog.Load(t.Context(), r.lineage)
	if err != nil {
		t.Fatal(err)
	}
	x := r.restore(t, c, catalog.Target{Latest: true})
	have := stamps(t, x.Server, false)
	sent := map[int64]bool{}
	missing := 0
	for _, e := range entries {
		sent[e.id] = true
		if _, ok := have[e.id]; !ok && !e.acked.IsZero() {
			missing++
			// what was acknowledged while the fault was under way was lost at once
			lost = max(lost, at.Sub(e.acked), time.Nanosecond)
		}
	}
	for id := range have {
		if !sent[id] {
			t.Errorf("row %x was never sent", id)
		}
	}
	t.Logf("%d of %d commits lost, the first acknowledged %s before the fault", missing, len(entries), lost)
	x.sound(t)
	return lost
}
