// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"testing"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/retention"
	"github.com/kbcli/kbcli/runtimes"
)

// PlanExpiry has a backup a day since April 10, the second by hand, and WAL of all.
func (f *fakeRuntime) PlanExpiry(_ context.Context, c *v1alpha1.Cluster, p *v1alpha1.BackupPolicy) (*runtimes.Expiry, error) {
	ttl, err := v1alpha1.ParseTTL(p.Spec.Retention.TTL)
	if err != nil {
		return nil, err
	}
	in := retention.Input{
		Now: f.now, TTL: ttl, MinBackups: int(p.Spec.Retention.MinBackups), MaxBackups: int(p.Spec.Retention.MaxBackups),
		SegmentSize: 16 << 20, WAL: []retention.Run{{Timeline: 1, From: 1, To: 30}}, Paths: []retention.Path{{History: pg.History{Timeline: 1}}},
	}
	for day, name := range []string{"b10", "hand", "b12", "b13", "b14"} {
		at := pg.LSN(2+3*day) << 24
		in.Backups = append(in.Backups, retention.Backup{
			Name: name, Manual: name == "hand", Timeline: 1, Start: at + 1, Stop: at + 2,
			StopTime: time.Date(2023, 4, 10+day, 18, 0, 0, 0, time.UTC),
		})
	}
	return &runtimes.Expiry{Repository: "local", Lineage: c.Status.Lineage, Input: in, List: retention.Plan(in)}, nil
}

func TestExpireDryRun(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", func(s *v1alpha1.ClusterStatus) { s.Lineage = "my-pg-1" })
	b.want("", "error: --dry-run is missing: the agent lets go by itself what has expired\nnext: kbcli cluster expire my-pg -n default --dry-run\n", exitUsage, "cluster", "expire", "my-pg")
	if _, errs, code := b.run("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "retention.ttl=5d"); code != 0 {
		t.Fatal(errs)
	}
	b.want(`NAME   COMPLETION-TIME              EXPIRES   REASON
b10    Apr 11,2023 02:00 UTC+0800   yes       it lies before the promised time
hand   Apr 12,2023 02:00 UTC+0800   no        it was taken by hand
b12    Apr 13,2023 02:00 UTC+0800   no        it lies within the promised time
b13    Apr 14,2023 02:00 UTC+0800   no        it lies within the promised time
b14    Apr 15,2023 02:00 UTC+0800   no        it lies within the promised time
`, "The promised time (ttl 5d) begins 2023-04-12 19:59:40 +08:00. WAL: 4 segments go, 25 stay.\n", 0, "cluster", "expire", "my-pg", "--dry-run")
}
