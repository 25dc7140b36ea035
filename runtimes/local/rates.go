// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/atomicfile"
)

// mostRates is more than rates.json has.
const mostRates = 1 << 20

// readRates is what restores took on this machine. A file that is damaged says nothing:
// estimates rest on what is typical then, and the next restore writes it anew.
func (r *Runtime) readRates() restore.Rates {
	rates, err := func() (restore.Rates, error) {
		info, err := os.Stat(r.rates())
		if err != nil {
			return restore.Rates{}, err
		}
		if info.Size() > mostRates {
			return restore.Rates{}, fmt.Errorf("it has %d bytes", info.Size())
		}
		b, err := os.ReadFile(r.rates())
		if err != nil {
			return restore.Rates{}, err
		}
		return restore.ParseRates(b)
	}()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("what restores took could not be read", "file", r.rates(), "error", err)
	}
	return rates
}

// learnRates notes how long a restore took. A failure to does not fail the restore.
func (r *Runtime) learnRates(p *restore.Plan, took restore.Took) {
	r.learning.Lock()
	defer r.learning.Unlock()
	rates := r.readRates()
	rates.Learn(p, took, r.clock())
	b, err := rates.Encode()
	if err == nil {
		err = atomicfile.Write(r.rates(), b, 0o644)
	}
	if err != nil {
		r.log.Warn("how long a restore took could not be noted", "file", r.rates(), "error", err)
	}
}

// tookNote tells how long a restore took, beside what was estimated.
func (k *keeper) tookNote(p *restore.Plan, took restore.Took) string {
	total := took.Fetch + took.Start + took.Replay
	k.r.log.Info("restored", "cluster", k.namespace+"/"+k.name, "seconds", total.Seconds(), "estimated", p.Estimate.TotalSeconds, "measured", p.Estimate.Measured,
		"fetch", took.Fetch.Seconds(), "replay", took.Replay.Seconds(), "start", took.Start.Seconds())
	return fmt.Sprintf("it took %s; %s were estimated", tenths(total), tenths(p.Estimate.Total()))
}

func tenths(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
