// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/ask"
	"github.com/kbcli/kbcli/runtimes/store"
)

var (
	_ runtimes.HistoryReader = (*Runtime)(nil)
	_ runtimes.LineageLister = (*Runtime)(nil)
	_ runtimes.Verifier      = (*Runtime)(nil)
	_ runtimes.Expirer       = (*Runtime)(nil)
)

// Plan asks kbcli beside the repository.
func (r *Runtime) Plan(ctx context.Context, src runtimes.Source, t catalog.Target) (*restore.Plan, error) {
	a, err := r.ask(ctx, ask.Question{Topic: ask.Plan, Source: src, Target: t})
	return a.Plan, err
}

// Clock is that of the source's server; of a source that does not run, of kbcli beside
// the repository.
func (r *Runtime) Clock(ctx context.Context, src runtimes.Source) (time.Time, error) {
	a, err := r.ask(ctx, ask.Question{Topic: ask.Clock, Source: src})
	return a.Now, err
}

// Windows are those of the status while there is a cluster, which its agent keeps; else
// they are asked for.
func (r *Runtime) Windows(ctx context.Context, src runtimes.Source) ([]catalog.Window, error) {
	c, err := store.Get[*v1alpha1.Cluster](ctx, r.objects, src.Namespace, src.Cluster)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	if err == nil && len(c.Status.Windows) > 0 && (src.Lineage == "" || src.Lineage == c.Status.Lineage) {
		return windowsOf(c.Status.Windows)
	}
	a, err := r.ask(ctx, ask.Question{Topic: ask.Windows, Source: src})
	return a.Windows, err
}

func windowsOf(of []v1alpha1.RecoverableWindow) ([]catalog.Window, error) {
	out := make([]catalog.Window, len(of))
	for i, w := range of {
		from, err := pg.ParseLSN(w.FromLSN)
		if err != nil {
			return nil, fmt.Errorf("window of the status: %w", err)
		}
		to, err := pg.ParseLSN(w.ToLSN)
		if err != nil {
			return nil, fmt.Errorf("window of the status: %w", err)
		}
		out[i] = catalog.Window{Timeline: pg.TimelineID(w.Timeline), Backup: w.Backup, From: w.From.Time, To: w.To.Time, FromLSN: from, ToLSN: to}
	}
	return out, nil
}

// History is read by kbcli beside the repository.
func (r *Runtime) History(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, fn func(catalog.Event, bool) error) error {
	each := func(events []runtimes.HistoryEvent) error {
		for i := range events {
			if err := fn(events[i].Event, events[i].Restorable); err != nil {
				return err
			}
		}
		return nil
	}
	last, err := r.askInParts(ctx, ask.Question{Topic: ask.History, Source: src, History: &q}, func(a ask.Answer) error { return each(a.Events) })
	if err != nil {
		return err
	}
	return each(last.Events)
}

// mostGoing is how many events are held until the far side says how far it came.
const mostGoing = 100_000

// FollowHistory reads on as kbcli beside the repository does. When the pod goes away
// that is an error, and q.Going says how far it came.
func (r *Runtime) FollowHistory(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, told func([]runtimes.HistoryEvent) error, looked func()) error {
	var held []runtimes.HistoryEvent
	_, err := r.askInParts(ctx, ask.Question{Topic: ask.Follow, Source: src, History: &q}, func(a ask.Answer) error {
		held = append(held, a.Events...)
		if a.Going == nil && len(held) < mostGoing {
			return nil
		}
		if len(held) > 0 {
			if err := told(held); err != nil {
				return err
			}
			held = nil
		}
		if a.Going != nil {
			q.Going.Next = a.Going.Next
		}
		if a.Going != nil && len(a.Events) == 0 {
			looked()
		}
		return nil
	})
	return err
}

// Lineages are those of the repositories that kbcli in the pod that answers has keys of.
func (r *Runtime) Lineages(ctx context.Context, namespace, cluster string) ([]repository.LineageInfo, error) {
	a, err := r.ask(ctx, ask.Question{Topic: ask.Lineages, Source: runtimes.Source{Namespace: namespace, Cluster: cluster}})
	return a.Lineages, err
}

// Verify has a backup read by kbcli beside the repository.
func (r *Runtime) Verify(ctx context.Context, b *v1alpha1.Backup, progress func(done, total int64)) (*restore.Report, error) {
	q := ask.Question{Topic: ask.Verify, Source: runtimes.Source{Namespace: b.Namespace, Cluster: b.Spec.ClusterRef}, Backup: b.Name}
	a, err := r.askInParts(ctx, q, func(a ask.Answer) error {
		if a.Progress != nil {
			progress(a.Progress.Done, a.Progress.Total)
		}
		return nil
	})
	return a.Report, err
}

// PlanExpiry is what the agent would do, as kbcli beside it says.
func (r *Runtime) PlanExpiry(ctx context.Context, c *v1alpha1.Cluster, p *v1alpha1.BackupPolicy) (*runtimes.Expiry, error) {
	a, err := r.ask(ctx, ask.Question{Topic: ask.Expiry, Source: runtimes.Source{Namespace: c.Namespace, Cluster: c.Name}, Policy: p.Name})
	return a.Expiry, err
}
