// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

// pagePlan is the plan of the example in the manual.
func pagePlan() *restore.Plan {
	return &restore.Plan{
		Lineage: "my-pg-0123456789ab", Major: 15, Timeline: 1, Time: clock("2023-04-17T11:56:40Z"),
		Window:     catalog.Window{Timeline: 1, From: clock("2023-04-17T11:55:48Z"), To: clock("2023-04-17T11:57:01Z")},
		Backup:     "backup-default-my-pg-20230417195547",
		BackupTime: clock("2023-04-17T11:55:48Z"), BackupBytes: 312_000_000,
		StopLSN: 0x3000028, EndLSN: 0x3000028, Segments: 4, WALBytes: 61_000_000, Records: 600_000,
		Estimate:  restore.Estimate{FetchSeconds: 4.2, ReplaySeconds: 0.8, StartSeconds: 1, TotalSeconds: 6, LowSeconds: 4.5, HighSeconds: 8, Measured: true},
		LastKept:  &restore.Commit{XID: 751, Time: clock("2023-04-17T11:56:39.812Z")},
		FirstLost: &restore.Commit{XID: 752, Time: clock("2023-04-17T11:56:41.005Z"), Dropped: 1},
	}
}

func TestSummary(t *testing.T) {
	var got strings.Builder
	for _, c := range []struct {
		name   string
		change func(p *preview)
	}{
		{"the manual's", func(*preview) {}},
		{"no last kept", func(p *preview) { p.plan.LastKept = nil }},
		{"no first lost", func(p *preview) { p.plan.FirstLost = nil }},
		{"exclusive", func(p *preview) { p.target.Exclusive = true }},
		{"latest", func(p *preview) {
			p.target = catalog.Target{Latest: true}
			p.plan.Time, p.plan.FirstLost = p.plan.Window.To, nil
		}},
		{"a backup", func(p *preview) {
			p.target = catalog.Target{Backup: p.plan.Backup}
			p.plan.Immediate, p.plan.LastKept, p.plan.FirstLost = true, nil, nil
			p.plan.Time, p.plan.Window.From, p.plan.Window.To = p.plan.BackupTime, p.plan.BackupTime, p.plan.BackupTime
			p.plan.Segments, p.plan.WALBytes = 1, 4096
		}},
		{"several windows", func(p *preview) { p.windows = 3 }},
		{"other days, fractions, much dropped", func(p *preview) {
			p.plan.Time = clock("2023-04-17T16:00:00.000001Z")
			p.plan.Window.From, p.plan.Window.To = clock("2023-04-10T01:02:03.4Z"), clock("2023-04-19T01:02:03.9Z")
			p.plan.LastKept.Time = clock("2023-04-17T15:59:59.5Z")
			p.plan.FirstLost.Dropped = 12
			p.now = clock("2023-04-19T16:30:00Z")
			p.plan.Estimate.TotalSeconds = 3000
		}},
		{"a table by its name", func(p *preview) { p.plan.FirstLost.What = "DROP TABLE public.msg" }},
		{"a clone", func(p *preview) { p.plan.Snapshot = "/srv/snapshots/s" }},
		{"a copy", func(p *preview) { p.plan.Snapshot, p.plan.Copied = "/srv/snapshots/s", true }},
		{"an LSN, with warnings", func(p *preview) {
			p.target = catalog.Target{LSN: 0x3000020}
			p.plan.Inclusive = true
			p.plan.Warnings = []string{"LSN 0/3000020 lies inside the record at 0/3000000: as PostgreSQL does, the restore goes on to the next record, at 0/3000028", "another"}
		}},
		{"a transaction, exclusive", func(p *preview) { p.target = catalog.Target{XID: 752, Exclusive: true} }},
		{"a restore point", func(p *preview) { p.target = catalog.Target{Name: "before-upgrade"} }},
		{"settings and tablespaces", func(p *preview) {
			p.plan.Raised = []restore.Raised{{Name: "max_connections", Value: 200}, {Name: "max_worker_processes", Value: 12}}
			p.plan.Made = []restore.MadeTablespace{{LSN: 0x2000028, Oid: 16400, Path: "/srv/fast"}}
		}},
		{"tablespaces", func(p *preview) {
			p.plan.Made = []restore.MadeTablespace{{LSN: 0x2000028, Oid: 16400, Path: "/srv/fast"}, {LSN: 0x2000128, Oid: 16401, Path: "/srv/slow"}}
		}},
		{"from another namespace", func(p *preview) { p.namespace = "staging" }},
		{"UTC, just now", func(p *preview) { p.zone, p.now = time.UTC, p.plan.Time }},
	} {
		p := &preview{
			plan: pagePlan(), target: catalog.Target{Time: clock("2023-04-17T11:56:40Z")},
			name: "new-cluster", namespace: "default", source: runtimes.Source{Namespace: "default", Cluster: "my-pg"}, now: pageNow, zone: shanghai, windows: 1,
		}
		c.change(p)
		fmt.Fprintf(&got, "-- %s --\n%s", c.name, p.summary())
	}
	golden(t, "summary.txt", got.String())
}
