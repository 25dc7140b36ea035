// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

func ratedPlan(t *testing.T, bytes, wal int64, records uint64) *Plan {
	t.Helper()
	repo, err := repository.Create(t.Context(), mem.New(time.Now), repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.CreateLineage(t.Context(), repository.LineageInfo{Namespace: "n", Cluster: "c", SystemID: 1, Major: 15, SegmentSize: pg.DefaultSegmentSize})
	if err != nil {
		t.Fatal(err)
	}
	p := &Plan{BackupBytes: bytes, WALBytes: wal, Records: records, manifest: &repository.Manifest{Files: 1000}, lineage: l}
	p.Weigh(Rates{})
	return p
}

// TestEstimateTypical: small records take longer than whole pages.
func TestEstimateTypical(t *testing.T) {
	small := ratedPlan(t, 0, 700e6, 700_000_000/90).Estimate
	pages := ratedPlan(t, 0, 700e6, 700_000_000/8192).Estimate
	if r := 700 / small.ReplaySeconds; r < 60 || r > 80 || small.Measured {
		t.Errorf("small records are replayed at %.0f MB/s: %+v", r, small)
	}
	if r := 700 / pages.ReplaySeconds; r < 400 || r > 460 {
		t.Errorf("whole pages are replayed at %.0f MB/s: %+v", r, pages)
	}
	for _, e := range []Estimate{small, pages} {
		if e.LowSeconds >= e.TotalSeconds || e.HighSeconds <= e.TotalSeconds || math.Abs(e.FetchSeconds+e.ReplaySeconds+e.StartSeconds-e.TotalSeconds) > 0.01 {
			t.Errorf("%+v", e)
		}
	}
}

// TestRatesLearn: estimates come to what is measured, and little work tells little.
func TestRatesLearn(t *testing.T) {
	now := time.Unix(1700000000, 0)
	p := ratedPlan(t, 40<<30, 10e9, 50e6)
	before := p.Estimate
	var r Rates
	for i := range 4 {
		r.Learn(p, Took{Fetch: 300 * time.Second, Start: 3 * time.Second, Replay: 40 * time.Second}, now.Add(time.Duration(i)*time.Hour))
	}
	p.Weigh(r)
	e := p.Estimate
	if !e.Measured || math.Abs(e.FetchSeconds-300) > 10 || math.Abs(e.ReplaySeconds-40) > 3 || math.Abs(e.StartSeconds-3) > 1 {
		t.Errorf("before %+v, measured %+v", before, e)
	}
	if e.HighSeconds/e.TotalSeconds > before.HighSeconds/before.TotalSeconds {
		t.Errorf("what was measured is less sure: %+v, before %+v", e, before)
	}
	// another repository is another
	o := ratedPlan(t, 40<<30, 10e9, 50e6)
	o.Weigh(r)
	if o.Estimate.Measured || o.Estimate.FetchSeconds != before.FetchSeconds {
		t.Errorf("another repository: %+v", o.Estimate)
	}
	// a tenth of a second of work that took a second
	tiny := ratedPlan(t, 1<<20, 1e6, 1000)
	r = Rates{}
	r.Learn(tiny, Took{Fetch: time.Second, Start: time.Second, Replay: time.Second}, now)
	p.lineage = tiny.lineage
	p.Weigh(r)
	if e := p.Estimate; e.FetchSeconds > 2*before.FetchSeconds {
		t.Errorf("one small restore made a large one's estimate %+v", e)
	}
}

func TestRatesKept(t *testing.T) {
	now := time.Unix(1700000000, 0).UTC()
	var r Rates
	for i := range 100 {
		r.Learn(ratedPlan(t, 1<<30, 1e9, 1e6), Took{Fetch: 5 * time.Second, Start: time.Second, Replay: time.Second}, now.Add(time.Duration(i)*time.Hour))
	}
	if len(r.Measured) != mostPaces {
		t.Errorf("%d are kept", len(r.Measured))
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseRates(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, again); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	for _, bad := range []string{
		"", "{", `{"measured": 7}`, `{"measured": {"start": {"typicalSeconds": "x"}}}`, string(b[:len(b)/2]), strings.Repeat("\x00", 100),
	} {
		if r, err := ParseRates([]byte(bad)); err == nil || len(r.Measured) > 0 {
			t.Errorf("%.20q: %v, %v", bad, r, err)
		}
	}
	for _, odd := range []string{"-1", "1e300", "0"} {
		r, err := ParseRates(fmt.Appendf(nil, `{"measured": {"start": {"typicalSeconds": %s, "tookSeconds": 1}, "replay": {"typicalSeconds": 1, "tookSeconds": 1}}}`, odd))
		if err != nil || len(r.Measured) != 1 {
			t.Errorf("%s: %v, %v", odd, r, err)
		}
	}
}

func FuzzParseRates(f *testing.F) {
	f.Add([]byte(`{"measured": {"start": {"typicalSeconds": 1, "tookSeconds": 2, "at": "2023-04-17T11:56:40Z"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRates(b)
		if err != nil {
			return
		}
		for name, p := range r.Measured {
			times, spread := p.times()
			if !p.sane() || !(times > 0) || math.IsInf(times, 0) || !(spread > 1) {
				t.Errorf("%s: %+v is %g times, %g off", name, p, times, spread)
			}
		}
	})
}
