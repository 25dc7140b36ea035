// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
)

// runAfterGap makes a full Backup when archiving goes on after a gap: what is archived
// from there on is of no use without one. It is a scheduled one, whatever schedules there
// are, because nobody asked for it by hand.
func (p *Protector) runAfterGap(ctx context.Context, policy *v1alpha1.BackupPolicy) error {
	a := p.last.archive
	if !policy.Spec.Schedule.Logfile.Enable || p.arch == nil || p.job != nil || a == nil || a.State != v1alpha1.ArchiveGap || len(a.Gaps) == 0 {
		return nil
	}
	gap := a.Gaps[0]
	for _, g := range a.Gaps {
		if g.Time.After(gap.Time.Time) {
			gap = g
		}
	}
	now := p.cfg.Clock().UTC()
	wait, err := p.unaskedWaits(ctx, v1alpha1.BackupDatafile, gap.Time.Time, now)
	if err != nil || wait {
		return err
	}
	if err := p.createScheduled(ctx, policy, v1alpha1.BackupDatafile, now.Truncate(time.Second)); err != nil {
		return err
	}
	p.cfg.Log.Info("a backup after a gap is due", "policy", policy.Name, "from", gap.From, "to", gap.To)
	p.happened(v1alpha1.KindBackupPolicy+"/"+policy.Name, runtimes.EventNormal, "BackupAfterGap",
		"WAL from %s to %s is missing: a full backup is taken, and begins a new window", gap.From, gap.To)
	return nil
}
