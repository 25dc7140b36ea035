// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	e := &runtimes.Expiry{Repository: "local", Lineage: c.Status.Lineage, Input: in, List: retention.Plan(in)}
	if e.Grace, err = v1alpha1.ParseGrace(p.Spec.Retention.Grace); err != nil {
		return nil, err
	}
	// what a ttl of 5 days lets go was marked two hours ago
	then := in
	then.Now, then.TTL = in.Now.Add(-2*time.Hour), 5*24*time.Hour
	e.Marked = retention.Marks{}.Step(then, retention.Plan(then), e.Grace).Marks
	e.Step = e.Marked.Step(in, e.List, e.Grace)
	return e, nil
}

func TestExpireDryRun(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", func(s *v1alpha1.ClusterStatus) { s.Lineage = "my-pg-1" })
	b.want("", "error: --dry-run is missing: the agent lets go by itself what has expired\nnext: kbcli cluster expire my-pg -n default --dry-run\n", exitUsage, "cluster", "expire", "my-pg")
	if _, errs, code := b.run("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "retention.ttl=5d"); code != 0 {
		t.Fatal(errs)
	}
	b.want(`NAME   COMPLETION-TIME              EXPIRES   MARKED                       DELETED                      REASON
b10    Apr 11,2023 02:00 UTC+0800   yes       Apr 17,2023 17:59 UTC+0800   Apr 18,2023 17:59 UTC+0800   it lies before the promised time
hand   Apr 12,2023 02:00 UTC+0800   no        <none>                       <none>                       it was taken by hand
b12    Apr 13,2023 02:00 UTC+0800   no        <none>                       <none>                       it lies within the promised time
b13    Apr 14,2023 02:00 UTC+0800   no        <none>                       <none>                       it lies within the promised time
b14    Apr 15,2023 02:00 UTC+0800   no        <none>                       <none>                       it lies within the promised time
`, "The promised time (ttl 5d, grace 1d) begins 2023-04-12 19:59:40 +08:00. WAL: 4 segments go, 4 of them are marked, and 25 stay.\nThe next WAL is deleted Apr 18,2023 17:59 UTC+0800.\n", 0, "cluster", "expire", "my-pg", "--dry-run")
	set := func(what string) {
		t.Helper()
		if _, errs, code := b.run("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", what); code != 0 {
			t.Fatal(errs)
		}
	}
	set("retention.ttl=3d")
	b.want(`NAME   COMPLETION-TIME              EXPIRES   MARKED                       DELETED                      REASON
b10    Apr 11,2023 02:00 UTC+0800   yes       Apr 17,2023 17:59 UTC+0800   Apr 18,2023 17:59 UTC+0800   it lies before the promised time
hand   Apr 12,2023 02:00 UTC+0800   no        <none>                       <none>                       it was taken by hand
b12    Apr 13,2023 02:00 UTC+0800   yes       at the next look             Apr 18,2023 19:59 UTC+0800   it lies before the promised time
b13    Apr 14,2023 02:00 UTC+0800   no        <none>                       <none>                       the promised time begins with it
b14    Apr 15,2023 02:00 UTC+0800   no        <none>                       <none>                       it lies within the promised time
`, "The promised time (ttl 3d, grace 1d) begins 2023-04-14 19:59:40 +08:00. WAL: 9 segments go, 4 of them are marked, and 20 stay.\nThe next WAL is deleted Apr 18,2023 17:59 UTC+0800.\n", 0, "cluster", "expire", "my-pg", "--dry-run")
	out, errs, code := b.run("cluster", "expire", "my-pg", "--dry-run", "-o", "json")
	var e expiry
	if err := json.Unmarshal([]byte(out), &e); code != 0 || err != nil {
		t.Fatal(errs, err)
	}
	at := func(day, hour int) time.Time { return time.Date(2023, 4, day, hour, 59, 40, 0, time.UTC) }
	want := expiryBackup{"b10", time.Date(2023, 4, 10, 18, 0, 0, 0, time.UTC), true, "it lies before the promised time", expiryMark{at(17, 9), at(18, 9)}}
	if diff := cmp.Diff(want, e.Backups[0], cmp.AllowUnexported(expiryBackup{})); diff != "" {
		t.Errorf("b10 (-want +got):\n%s", diff)
	}
	wal := []expiryWAL{
		{1, "0/1000000", "0/5000000", expiryMark{at(17, 9), at(18, 9)}},
		{1, "0/6000000", "0/B000000", expiryMark{time.Time{}, at(18, 11)}},
	}
	if diff := cmp.Diff(wal, e.WAL, cmp.AllowUnexported(expiryWAL{})); diff != "" {
		t.Errorf("WAL (-want +got):\n%s", diff)
	}
	set("retention.grace=0h")
	b.want(`NAME   COMPLETION-TIME              EXPIRES   MARKED   DELETED            REASON
b10    Apr 11,2023 02:00 UTC+0800   yes       <none>   at the next look   it lies before the promised time
hand   Apr 12,2023 02:00 UTC+0800   no        <none>   <none>             it was taken by hand
b12    Apr 13,2023 02:00 UTC+0800   yes       <none>   at the next look   it lies before the promised time
b13    Apr 14,2023 02:00 UTC+0800   no        <none>   <none>             the promised time begins with it
b14    Apr 15,2023 02:00 UTC+0800   no        <none>   <none>             it lies within the promised time
`, "The promised time (ttl 3d, grace 0h) begins 2023-04-14 19:59:40 +08:00. WAL: 9 segments go, 0 of them are marked, and 20 stay.\n", 0, "cluster", "expire", "my-pg", "--dry-run")
}

// TestMarkedBackup: a backup that goes says so where it is shown.
func TestMarkedBackup(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	marked, goes := metav1.NewTime(clock("2023-04-17T11:00:00Z")), metav1.NewTime(clock("2023-04-18T11:00:00Z"))
	b.backup("b1", "my-pg", v1alpha1.BackupStatus{Phase: v1alpha1.BackupCompleted, MarkedTime: marked, DeletionTime: goes})
	b.backup("b2", "my-pg", v1alpha1.BackupStatus{Phase: v1alpha1.BackupCompleted})
	for _, c := range []struct {
		args string
		says bool
	}{
		{"cluster list-backup --name b1 -o wide", true},
		{"cluster list-backup --name b2 -o wide", false},
		{"cluster describe-backup b1", true},
		{"cluster describe-backup b2", false},
		{"cluster list-backup --name b1", false},
	} {
		out, errs, code := b.run(strings.Fields(c.args)...)
		if code != 0 || strings.Contains(out, "Apr 18,2023 19:00 UTC+0800") != c.says {
			t.Errorf("kbcli %s: %s%s", c.args, out, errs)
		}
	}
	out, _, _ := b.run("cluster", "describe-backup", "b1")
	if want := "Deleted:         Apr 18,2023 19:00 UTC+0800, unless the policy promises it again: marked Apr 17,2023 19:00 UTC+0800\n"; !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(want), " ")) {
		t.Errorf("described as\n%s", out)
	}
}
