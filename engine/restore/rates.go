// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Estimate is how long a restore will take, in seconds.
type Estimate struct {
	FetchSeconds  float64 `json:"fetchSeconds"`
	ReplaySeconds float64 `json:"replaySeconds"`
	// StartSeconds are those of starting, opening and stopping the server.
	StartSeconds float64 `json:"startSeconds"`
	TotalSeconds float64 `json:"totalSeconds"`
	// It will hardly take less than LowSeconds, or more than HighSeconds.
	LowSeconds  float64 `json:"lowSeconds"`
	HighSeconds float64 `json:"highSeconds"`
	// Measured tells that it rests on what earlier restores took here, and not on what
	// is typical of other machines.
	Measured bool `json:"measured"`
}

// Total is how long the restore will take.
func (e Estimate) Total() time.Duration { return time.Duration(e.TotalSeconds * float64(time.Second)) }

// What is typical, of one core of replay and unpacking on two. A record costs what a
// byte does not: pgbench's small ones are replayed at about 70 MB/s, whole pages
// at 455.
const (
	fetchRate  = 400 << 20 // bytes a second
	copyRate   = 800 << 20
	fileSecond = 100e-6 // one file
	cloneFile  = 50e-6

	recordSecond = 1.1e-6
	replayRate   = 455e6

	startSeconds = 1.0
)

// Rates are how long restores took, against what is typical. The zero value is that none
// is known. They are kept as JSON by whoever runs restores.
type Rates struct {
	Measured map[string]Pace `json:"measured,omitempty"`
}

// Pace is what was measured of one kind of work. What is older counts for less: half
// with each time.
type Pace struct {
	Typical float64   `json:"typicalSeconds"` // what the same would take typically
	Took    float64   `json:"tookSeconds"`
	At      time.Time `json:"at"` // when the newest was measured
}

// prior is how many seconds of work are taken to have gone at the typical pace: little work
// tells little of much.
const prior = 1.0

// mostPaces is how many kinds are kept: one to fetch and one to replay for each repository.
const mostPaces = 32

// times is how many times as long as typical it takes, and how far off that may be.
func (p Pace) times() (times, spread float64) {
	return (p.Took + prior) / (p.Typical + prior), 1.25 + 1.25*prior/(p.Typical+prior)
}

// sane tells whether a pace can have been measured.
func (p Pace) sane() bool {
	for _, x := range []float64{p.Typical, p.Took} {
		if math.IsNaN(x) || x < 0 || x > 1e9 {
			return false
		}
	}
	return p.Typical > 0
}

// ParseRates reads what Encode wrote. What can not have been measured is left out; after
// an error the rates are the zero value.
func ParseRates(b []byte) (Rates, error) {
	var r Rates
	if err := json.Unmarshal(b, &r); err != nil {
		return Rates{}, fmt.Errorf("measured rates: %w", err)
	}
	for name, p := range r.Measured {
		if !p.sane() {
			delete(r.Measured, name)
		}
	}
	r.bound()
	return r, nil
}

// Encode gives the rates as JSON.
func (r Rates) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}

// bound forgets the kinds that were not measured for longest.
func (r *Rates) bound() {
	for len(r.Measured) > mostPaces {
		oldest := ""
		for name, p := range r.Measured {
			if oldest == "" || p.At.Before(r.Measured[oldest].At) {
				oldest = name
			}
		}
		delete(r.Measured, oldest)
	}
}

// Took is how long a restore took.
type Took struct {
	Fetch  time.Duration
	Start  time.Duration // all of Recover but Replay
	Replay time.Duration // as Reached has it
}

// work is what a plan does, in seconds that are typical.
type work struct {
	kind    string
	seconds float64
}

func (p *Plan) work() (fetch, replay, start work) {
	repo := p.lineage.Repository().ID()
	bytes, files := float64(p.BackupBytes), float64(p.manifest.Files)
	switch {
	case p.Snapshot != "" && p.Copied:
		fetch = work{"copy", bytes/copyRate + files*fileSecond}
	case p.Snapshot != "":
		fetch = work{"clone", files * cloneFile}
	default:
		fetch = work{"fetch " + repo, bytes/fetchRate + files*fileSecond}
	}
	replay = work{"replay " + repo, float64(p.WALBytes)/replayRate + float64(p.Records)*recordSecond}
	return fetch, replay, work{"start", startSeconds}
}

// Learn takes in how long the restore of a plan took that ended at at.
func (r *Rates) Learn(p *Plan, took Took, at time.Time) {
	if r.Measured == nil {
		r.Measured = map[string]Pace{}
	}
	fetch, replay, start := p.work()
	for _, x := range []struct {
		work
		took time.Duration
	}{{fetch, took.Fetch}, {replay, took.Replay}, {start, took.Start}} {
		one := r.Measured[x.kind]
		one = Pace{one.Typical/2 + x.seconds, one.Took/2 + max(x.took, 0).Seconds(), at.UTC()}
		if one.sane() {
			r.Measured[x.kind] = one
		}
	}
	r.bound()
}

// Weigh makes the plan's estimate by measured rates.
func (p *Plan) Weigh(r Rates) {
	p.rates = r
	p.estimate()
}

func (p *Plan) estimate() {
	e := Estimate{Measured: true}
	fetch, replay, start := p.work()
	for _, x := range []struct {
		work
		to *float64
	}{{fetch, &e.FetchSeconds}, {replay, &e.ReplaySeconds}, {start, &e.StartSeconds}} {
		pace, known := p.rates.Measured[x.kind]
		times, spread := pace.times()
		seconds := x.seconds * times
		*x.to = thousandths(seconds)
		e.TotalSeconds += seconds
		e.LowSeconds += seconds / spread
		e.HighSeconds += seconds * spread
		// what takes next to no time need not be known
		e.Measured = e.Measured && (known || seconds < 0.1)
	}
	e.TotalSeconds, e.LowSeconds, e.HighSeconds = thousandths(e.TotalSeconds), thousandths(e.LowSeconds), thousandths(e.HighSeconds)
	p.Estimate = e
}

func thousandths(x float64) float64 { return math.Round(x*1000) / 1000 }
