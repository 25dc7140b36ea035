// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/retention"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Expiry is a plan with the promise that it was made for, and what it was made of.
type Expiry struct {
	Promise Promise
	Input   retention.Input
	List    retention.List
}

// Step marks what the plan lets go, says so in the Backups, and deletes what has been
// marked for long enough: of Backups the objects, whose deletion removes their bytes, and
// where there are none WAL and leftovers. The caller holds the lineage's lock; all are the
// objects there are. While an incremental backup is taken no backup goes.
func (x Expiry) Step(ctx context.Context, objects store.Store, log *slog.Logger, l *repository.Lineage, all []*v1alpha1.Backup) (retention.Step, error) {
	marks, err := retention.LoadMarks(ctx, l)
	var corrupt *repository.CorruptError
	if errors.As(err, &corrupt) {
		log.Warn("what was marked to go is marked anew", "lineage", l.Info().ID, "error", err)
		err = nil
	}
	if err != nil {
		return retention.Step{}, err
	}
	step := marks.Step(x.Input, x.List, x.Promise.Grace)
	if isBuilding(l.Info().ID) && (len(step.Go.Backups) > 0 || len(step.Go.Leftovers) > 0) {
		step.Go = retention.List{} // the next round sees what the backup uses that is being taken
	}
	if step.Save {
		if err := retention.SaveMarks(ctx, l, step.Marks); err != nil {
			return retention.Step{}, err
		}
	}
	if err := noteMarks(ctx, objects, l.Info().ID, step.Marks, x.Promise.Grace, all); err != nil {
		return retention.Step{}, err
	}
	if step.Go.Empty() {
		return step, nil
	}
	return step, letGo(ctx, objects, log, l, step.Go, all)
}

// LookForLeftovers adds to the input of a plan what is left of backups that were
// interrupted or deleted in part; but not of those that somebody may go on with, whose
// objects say so. all are the lineage's objects.
func LookForLeftovers(ctx context.Context, l *repository.Lineage, in *retention.Input, all []*v1alpha1.Backup) error {
	left, err := l.Leftovers(ctx)
	if err != nil {
		return err
	}
	in.Leftovers = left
	for _, b := range all {
		if b.Status.Phase == v1alpha1.BackupFailed && b.DeletionTimestamp == nil {
			continue
		}
		if slices.Contains(left, b.Name) {
			if in.Keep == nil {
				in.Keep = map[string]bool{}
			}
			in.Keep[b.Name] = true
		}
	}
	return nil
}

// noteMarks says in the Backups of a lineage which of them go, and when.
func noteMarks(ctx context.Context, objects store.Store, lineage string, marks retention.Marks, grace time.Duration, all []*v1alpha1.Backup) error {
	for _, b := range all {
		if b.Status.Lineage != lineage || b.DeletionTimestamp != nil {
			continue
		}
		var since, at metav1.Time
		if k, ok := marks.Backups[b.Name]; ok {
			since, at = metav1.NewTime(k.Since.Truncate(time.Second)), metav1.NewTime(marks.Until(k, grace).Truncate(time.Second))
		}
		if st := &b.Status; st.MarkedTime.Equal(&since) && st.DeletionTime.Equal(&at) {
			continue
		}
		_, err := store.MutateStatus(ctx, objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
			b.Status.MarkedTime, b.Status.DeletionTime = since, at
			return nil
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// tellMarked notes which backups are to go, and which stay after all.
func (p *Protector) tellMarked(step retention.Step, grace time.Duration, all ...*v1alpha1.Backup) {
	for _, b := range all {
		object := v1alpha1.KindBackup + "/" + b.Name
		switch {
		case b.DeletionTimestamp != nil:
		case slices.Contains(step.New, b.Name):
			p.happened(object, runtimes.EventNormal, "BackupMarked", "nothing that is promised needs it: it is deleted at %s, unless the policy promises it again by then",
				step.Marks.Until(step.Marks.Backups[b.Name], grace).UTC().Format(time.RFC3339))
		case slices.Contains(step.Kept, b.Name):
			p.happened(object, runtimes.EventNormal, "BackupKept", "it is promised again, and stays")
		}
	}
}
