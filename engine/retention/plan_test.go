// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
)

// TestNumbers has a backup every ten ticks, the third by hand and the fifth without
// its WAL, and asks at tick 100 what a policy keeps.
func TestNumbers(t *testing.T) {
	names := []string{"b0", "b1", "hand", "b3", "broken", "b5", "b6", "b7"}
	input := func(p promise) Input {
		in := Input{
			Now: tick(100), TTL: tick(p.ttl).Sub(epoch), MinBackups: p.least, MaxBackups: p.most, SegmentSize: size,
			Paths: []Path{{History: pg.History{Timeline: 1}}},
			WAL:   []Run{{1, 0, 16}, {1, 17, 40}},
		}
		for i, name := range names {
			from := size.Start(uint64(4 * i))
			in.Backups = append(in.Backups, Backup{name, name == "hand", 1, from + 1, from + 2, tick(10 * i)})
		}
		return in
	}
	stays := func(from int) (out []string) {
		for i, name := range names {
			if i >= from || name == "hand" {
				out = append(out, name)
			}
		}
		return out
	}
	for _, c := range []struct {
		promise
		from, begins int // the first backup that stays, and the tick of the promise
	}{
		{promise{ttl: 45}, 5, 55},               // b5 ended at 50
		{promise{ttl: 45, least: 3}, 5, 50},     // b5, b6, b7
		{promise{ttl: 45, least: 4}, 3, 30},     // the broken one does not count
		{promise{ttl: 45, least: 100}, 0, 0},    // there are not so many
		{promise{ttl: 45, most: 2}, 6, 60},      // less than the ttl promises
		{promise{ttl: 45, most: 100}, 5, 55},    // the ttl is stronger
		{promise{ttl: 1, most: 4}, 7, 99},       //
		{promise{ttl: 1, least: 2}, 6, 60},      //
		{promise{1, 2, 2}, 6, 60},               //
		{promise{90, 1, 3}, 5, 50},              //
		{promise{ttl: 95, most: 1}, 7, 70},      // the newest never goes
		{promise{ttl: 1000, least: 2}, 0, -900}, //
	} {
		l := Plan(input(c.promise))
		var kept []string
		for _, k := range l.KeptBackups {
			kept = append(kept, k.Backup)
		}
		if diff := cmp.Diff(stays(c.from), kept); diff != "" {
			t.Errorf("%+v: backups (-want +got):\n%s", c.promise, diff)
		}
		if !l.Begins.Equal(tick(c.begins)) {
			t.Errorf("%+v: the promised time begins at %s, want %s", c.promise, l.Begins, tick(c.begins))
		}
	}
	why := map[string]Reason{}
	for _, k := range Plan(input(promise{ttl: 45, least: 4})).KeptBackups {
		why[k.Backup] = k.Reason
	}
	want := map[string]Reason{"hand": Manual, "b3": Base, "broken": Number, "b5": Number, "b6": Recent, "b7": Recent}
	if diff := cmp.Diff(want, why); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}
