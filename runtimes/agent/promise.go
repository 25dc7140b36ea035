// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/retention"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Promise is what a policy says of how much is kept.
type Promise struct {
	TTL         time.Duration
	Least, Most int // scheduled backups; Most 0 is no limit
	// Grace is how long what the rest lets go is only marked.
	Grace time.Duration
}

// PromiseOf reads the retention of a policy.
func PromiseOf(r v1alpha1.RetentionSpec) (Promise, error) {
	ttl, err := v1alpha1.ParseTTL(r.TTL)
	grace, err2 := v1alpha1.ParseGrace(r.Grace)
	return Promise{TTL: ttl, Least: int(r.MinBackups), Most: int(r.MaxBackups), Grace: grace}, cmp.Or(err, err2)
}

// Load reads what retention.Plan must know to keep the promise in a lineage.
func (p Promise) Load(ctx context.Context, l *repository.Lineage, now time.Time) (retention.Input, error) {
	in, err := retention.Load(ctx, l, now, p.TTL)
	in.MinBackups, in.MaxBackups = p.Least, p.Most
	return in, err
}

// letGo deletes the Backups of a lineage that are listed, as objects, whose deletion
// removes their bytes; or, when there are none, the WAL. all are the objects there are.
func letGo(ctx context.Context, objects store.Store, log *slog.Logger, lineage *repository.Lineage, list retention.List, all []*v1alpha1.Backup) error {
	if len(list.Backups) == 0 {
		return retention.Apply(ctx, lineage, list)
	}
	for _, name := range list.Backups {
		i := slices.IndexFunc(all, func(b *v1alpha1.Backup) bool {
			return b.Name == name && b.Status.Lineage == lineage.Info().ID
		})
		if i < 0 {
			// its object is lost: there is nobody but us to let it go
			if err := retention.Apply(ctx, lineage, retention.List{Backups: []string{name}}); err != nil {
				return err
			}
			continue
		}
		if err := deleteObject(ctx, objects, log, all[i]); err != nil {
			return err
		}
	}
	return nil
}

func deleteObject(ctx context.Context, objects store.Store, log *slog.Logger, b *v1alpha1.Backup) error {
	if b.DeletionTimestamp != nil {
		return nil
	}
	log.Info("a backup expired", "backup", b.Name, "phase", b.Status.Phase)
	err := objects.Delete(ctx, v1alpha1.KindBackup, b.Namespace, b.Name, store.Preconditions{UID: string(b.UID)})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Restoring tells whether somebody restores from a cluster, and so reads what may no
// longer be promised. A Cluster that cannot be read may be restoring: that is an error.
func Restoring(ctx context.Context, objects store.Store, namespace, cluster string) (bool, error) {
	all, err := store.List[*v1alpha1.Cluster](ctx, objects, "", nil)
	if err != nil {
		return false, err
	}
	for _, c := range all {
		r := c.Spec.Restore
		if r == nil || c.DeletionTimestamp != nil || c.Status.Phase == v1alpha1.ClusterFailed {
			continue
		}
		// with a backup alone the source need not be named
		ours := r.SourceCluster == "" || r.SourceCluster == cluster && r.SourceNamespace == namespace
		over := c.Status.Restore != nil && (c.Status.Restore.Phase == v1alpha1.RestoreCompleted || c.Status.Restore.Phase == v1alpha1.RestoreFailed)
		if ours && !over {
			return true, nil
		}
	}
	return false, nil
}

// joinWords puts sentences side by side; empty ones are none.
func joinWords(words ...string) string {
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), "; ")
}
