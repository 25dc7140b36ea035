// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// annotationSchedule notes on a policy since when the schedule of a type is as it is,
// the moment and the five fields: a moment before that was not missed.
func annotationSchedule(kind v1alpha1.BackupType) string {
	return "dataprotection.kubeblocks.io/" + string(kind) + "-schedule-since"
}

// runSchedule makes a Backup for the newest moment of each schedule that has come since
// the last one: however many were missed, it is one Backup. While a scheduled Backup is
// not at its end no other is made.
func (p *Protector) runSchedule(ctx context.Context) error {
	policy := p.policy
	if policy == nil {
		return nil
	}
	s := policy.Spec.Schedule
	return errors.Join(
		p.runOne(ctx, policy, v1alpha1.BackupSnapshot, s.Snapshot),
		p.runOne(ctx, policy, v1alpha1.BackupDatafile, s.Datafile),
		p.runOne(ctx, policy, v1alpha1.BackupIncremental, s.Incremental),
		p.runAfterGap(ctx, policy),
		p.runReplayBound(ctx, policy),
	)
}

// runOne follows the schedule of one type.
func (p *Protector) runOne(ctx context.Context, policy *v1alpha1.BackupPolicy, kind v1alpha1.BackupType, s v1alpha1.Schedule) error {
	now := p.cfg.Clock().UTC()
	since, err := p.scheduleSince(ctx, policy, kind, s, now)
	if err != nil || !s.Enable {
		return err
	}
	if kind == v1alpha1.BackupSnapshot && p.noSnapshots(ctx) != nil {
		return nil // the policy's status says why
	}
	cron, err := v1alpha1.ParseCron(s.CronExpression)
	if err != nil {
		return err
	}
	last := policy.Status.LastScheduleTime[string(kind)].UTC()
	if last.After(since) && !last.After(now) {
		since = last
	}
	at := lastMoment(cron, since, now)
	if at.IsZero() {
		return nil
	}
	pending, err := p.scheduledPending(ctx)
	if err != nil || pending {
		return err
	}
	if err := p.createScheduled(ctx, policy, kind, at); err != nil {
		return err
	}
	p.cfg.Log.Info("a scheduled backup is due", "policy", policy.Name, "type", kind, "moment", at)
	p.tellSchedule(policy, kind, at, now)
	_, err = store.MutateStatus(ctx, p.cfg.Objects, policy.Namespace, policy.Name, func(o *v1alpha1.BackupPolicy) error {
		if o.Status.LastScheduleTime == nil {
			o.Status.LastScheduleTime = map[string]metav1.Time{}
		}
		o.Status.LastScheduleTime[string(kind)] = metav1.NewTime(at)
		return nil
	})
	return err
}

// lastMoment is the newest moment of a schedule after since and not after now; zero if
// there is none. It does not walk through all that were missed.
func lastMoment(cron v1alpha1.Cron, since, now time.Time) time.Time {
	for _, back := range []time.Duration{time.Hour, 24 * time.Hour, 32 * 24 * time.Hour, 0} {
		from := now.Add(-back)
		if back == 0 || from.Before(since) {
			from = since
		}
		var found time.Time
		for at := cron.Next(from); !at.IsZero() && !at.After(now); at = cron.Next(at) {
			found = at
		}
		if !found.IsZero() || from.Equal(since) {
			return found
		}
	}
	return time.Time{}
}

// scheduleSince is since when the schedule is as it is. It notes that on the policy
// when the schedule was switched on or changed, and takes the note away with it.
func (p *Protector) scheduleSince(ctx context.Context, policy *v1alpha1.BackupPolicy, kind v1alpha1.BackupType, s v1alpha1.Schedule, now time.Time) (time.Time, error) {
	key := annotationSchedule(kind)
	note := policy.Annotations[key]
	stamp, fields, _ := strings.Cut(note, " ")
	since, err := time.Parse(time.RFC3339, stamp)
	want := ""
	switch {
	case !s.Enable:
	case err == nil && fields == s.CronExpression && !since.After(now):
		want = note
	default: // also where the clock was set back
		since = now.Truncate(time.Second)
		want = since.Format(time.RFC3339) + " " + s.CronExpression
	}
	if want == note {
		return since, nil
	}
	_, err = store.Mutate(ctx, p.cfg.Objects, policy.Namespace, policy.Name, func(o *v1alpha1.BackupPolicy) error {
		if want == "" {
			delete(o.Annotations, key)
			return nil
		}
		if o.Annotations == nil {
			o.Annotations = map[string]string{}
		}
		o.Annotations[key] = want
		return nil
	})
	return since, err
}

// scheduledPending tells whether a Backup that a schedule made is not at its end.
func (p *Protector) scheduledPending(ctx context.Context) (bool, error) {
	all, err := store.List[*v1alpha1.Backup](ctx, p.cfg.Objects, p.cfg.Namespace, map[string]string{v1alpha1.LabelCluster: p.cfg.Cluster})
	var broken store.BrokenObjects
	if err != nil && !errors.As(err, &broken) {
		return false, err
	}
	for _, b := range all {
		if b.Labels[v1alpha1.LabelScheduled] == "" || b.DeletionTimestamp != nil {
			continue
		}
		if phase := b.PhaseOrNew(); phase == v1alpha1.BackupNew || phase == v1alpha1.BackupInProgress {
			return true, nil
		}
	}
	return false, nil
}

// createScheduled makes the Backup of a moment. That it is there already, because
// an agent ended before it noted so, is success; the name may also be that of a Backup
// that somebody asked for in the same second, or of one of another schedule.
func (p *Protector) createScheduled(ctx context.Context, policy *v1alpha1.BackupPolicy, kind v1alpha1.BackupType, at time.Time) error {
	for second := range 10 {
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{
			Namespace: p.cfg.Namespace,
			Name:      v1alpha1.BackupName(p.cfg.Namespace, p.cfg.Cluster, at.UTC().Add(time.Duration(second)*time.Second)),
			Labels:    map[string]string{v1alpha1.LabelScheduled: policy.Name},
		}}
		b.Spec.ClusterRef, b.Spec.BackupPolicyName = p.cfg.Cluster, policy.Name
		b.Spec.BackupType = kind
		err := p.cfg.Objects.Create(ctx, b)
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		have, err := store.Get[*v1alpha1.Backup](ctx, p.cfg.Objects, b.Namespace, b.Name)
		if err != nil {
			return err
		}
		if have.Labels[v1alpha1.LabelScheduled] != "" && have.Spec.BackupType == kind {
			return nil
		}
	}
	return fmt.Errorf("the names of a backup of %s are all taken", at.Format(time.RFC3339))
}
