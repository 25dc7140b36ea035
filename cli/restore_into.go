// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// cluster is the object that asks for the restore. It holds what the target was
// found to mean, so that what was shown is what is done.
func (o *restoring) cluster(ctx context.Context, s store.Store, namespace, name string, p *preview) (*v1alpha1.Cluster, error) {
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	src, err := store.Get[*v1alpha1.Cluster](ctx, s, p.source.Namespace, p.source.Cluster)
	switch {
	case err == nil:
		// It must hold as much as the source does, and serve as much.
		c.Spec.Storage, c.Spec.StorageClassName = src.Spec.Storage, src.Spec.StorageClassName
		c.Spec.Resources, c.Spec.Settings, c.Spec.Replicas = src.Spec.Resources, src.Spec.Settings, src.Spec.Replicas
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	if err := o.reshape(&c.Spec); err != nil {
		return nil, err
	}
	if p.plan.Major != 0 {
		c.Spec.ClusterVersionRef = fmt.Sprintf("postgresql-%d", p.plan.Major)
	}
	r := &v1alpha1.RestoreSpec{
		SourceCluster: p.source.Cluster, SourceNamespace: p.source.Namespace, SourceLineage: p.plan.Lineage,
		Backup: o.backup, Latest: p.target.Latest, Exclusive: o.exclusive, Timeline: int64(o.timeline),
		LSN: o.lsn, XID: o.xid, Name: o.point, Resolved: resolved(p.plan),
		Delta: o.delta,
	}
	if r.Limits, err = o.limits.spec("download"); err != nil {
		return nil, err
	}
	if p.target.Earliest {
		r.Backup = p.plan.Backup
	}
	if !p.target.Time.IsZero() {
		t := v1alpha1.MicroTimeOf(p.target.Time)
		r.Time = &t
	}
	c.Spec.Restore = r
	return c, nil
}

func resolved(p *restore.Plan) *v1alpha1.ResolvedTarget {
	return &v1alpha1.ResolvedTarget{
		Timeline: int64(p.Timeline), StopLSN: p.StopLSN.String(), StopInclusive: p.Inclusive,
		Immediate: p.Immediate, EndLSN: p.EndLSN.String(), BackupName: p.Backup,
	}
}

// reshape gives the new cluster what its source has not.
func (o *restoring) reshape(spec *v1alpha1.ClusterSpec) (err error) {
	if o.shape != nil {
		err = o.shape.apply(spec)
		o.asked = o.shape.asked
		return err
	}
	o.asked, err = reshape(spec, o.sets)
	return err
}

// room says why there is no place for the new cluster, before anything is made. A size
// that nobody asked for is raised to what is needed.
func (o *restoring) room(ctx context.Context, a *app, p *preview, c *v1alpha1.Cluster) error {
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	if o.delta != "" {
		over, ok := rt.(runtimes.Overwriter)
		if !ok {
			return usage("--delta is for one machine: on Kubernetes a restored cluster has volumes of its own")
		}
		return over.CheckDelta(ctx, p.plan, a.namespace, p.name, o.delta)
	}
	if place, ok := rt.(runtimes.Roomer); ok {
		if err := place.CheckRoom(p.plan, c); err != nil {
			return err
		}
	}
	place, ok := rt.(runtimes.Fitter)
	if !ok {
		return nil
	}
	need, driver, err := place.Needs(ctx, p.plan, c.Spec.StorageClassName)
	if err != nil {
		return err
	}
	c.SetDefaults()
	if c.Spec.StorageClassName == "" {
		c.Spec.StorageClassName = need.Class
	}
	if !slices.Contains(o.asked, "storage") {
		need.Grow(&c.Spec)
	}
	return need.Judge(&c.Spec, driver)
}
