// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/examination"
	"github.com/kbcli/kbcli/runtimes/kubernetes/ask"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/store"
)

var _ runtimes.Doctor = (*Runtime)(nil)

// examinedAtOnce is how many clusters are asked at the same time.
const examinedAtOnce = 8

// lookPatience is how long the way to a pod and what it looks at may take.
const lookPatience = 3 * examination.Patience

// Examine looks at the operator from here, has the operator look at the repositories, and
// each cluster's primary at itself. What may not be asked is told of as far as the
// objects tell.
func (r *Runtime) Examine(ctx context.Context, namespace string, chosen []string) ([]runtimes.Examined, error) {
	s, err := examination.Look(ctx, r.objects, namespace, r.clock)
	if err != nil {
		return nil, err
	}
	clusters, err := s.Choose(namespace, chosen)
	if err != nil {
		return nil, err
	}
	var repositories []runtimes.Examined
	examined := make([]runtimes.Examined, len(clusters))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(examinedAtOnce)
	var operator runtimes.Examined
	group.Go(func() error { operator = r.examineOperator(gctx, len(s.Clusters)); return nil })
	group.Go(func() error { repositories = r.examineRepositories(gctx, s); return nil })
	for i, c := range clusters {
		group.Go(func() error { examined[i] = r.examineCluster(gctx, s, c); return nil })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	out := append([]runtimes.Examined{operator}, repositories...)
	out = append(out, examined...)
	return append(out, s.Unreadable(func(b *store.BrokenObject) string {
		return fmt.Sprintf("kubectl get %s -n %s %s -o yaml", b.Key.Kind, b.Key.Namespace, b.Key.Name)
	})...), nil
}

func (r *Runtime) examineOperator(ctx context.Context, clusters int) runtimes.Examined {
	o := checkup.Operator{Namespace: names.SystemNamespace, Own: r.version, Clusters: clusters}
	found, err := r.operators(ctx)
	if err != nil {
		o.Err = err
	}
	for _, d := range found {
		o.Namespace = d.Namespace
		o.Wanted, o.Runs = int(d.Status.Replicas), int(d.Status.AvailableReplicas)
		if d.Spec.Replicas != nil {
			o.Wanted = int(*d.Spec.Replicas)
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			if c.Name == names.ContainerOperator {
				o.Image = c.Image
			}
		}
		break
	}
	if o.Err == nil {
		o.Down = r.Ready(ctx)
	}
	return runtimes.Examined{Subject: "operator", Findings: o.Findings()}
}

func (r *Runtime) examineRepositories(ctx context.Context, s *examination.Scene) []runtimes.Examined {
	if len(s.Repos) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	a, err := r.ask(ctx, ask.Question{Topic: ask.Examine})
	if err == nil {
		return a.Examined
	}
	var out []runtimes.Examined
	for _, o := range s.Repos {
		f := checkup.Finding{
			Check: "repository-reachable", Level: checkup.Warn, Next: "kbcli backuprepo describe " + o.Name,
			Evidence: fmt.Sprintf("the operator, which has its keys, could not be asked: %v", err),
		}
		if o.Status.Phase == v1alpha1.RepoFailed {
			f.Level, f.Evidence = checkup.Fail, o.Status.Message
		}
		out = append(out, runtimes.Examined{Subject: "repository " + o.Name, Findings: []checkup.Finding{f}})
	}
	return out
}

func (r *Runtime) examineCluster(ctx context.Context, s *examination.Scene, c *v1alpha1.Cluster) runtimes.Examined {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	out := runtimes.Examined{Subject: "cluster " + c.Namespace + "/" + c.Name}
	in := r.instancesOf(ctx, c)
	out.Findings = in.Findings()
	err := error(&NoPrimaryError{c.Namespace, c.Name, len(in.Serve) + len(in.Others)})
	if in.Primary != "" && !c.Spec.Stopped {
		var a ask.Answer
		a, err = r.ask(ctx, ask.Question{Topic: ask.Examine, Source: runtimes.Source{Namespace: c.Namespace, Cluster: c.Name}})
		if err == nil && len(a.Examined) > 0 {
			out.Findings = append(out.Findings, a.Examined[0].Findings...)
			return out
		}
	}
	p := s.Unseen(c, err, examination.Server{AgentRuns: in.Primary != "", Revive: fmt.Sprintf("kbcli cluster list-instances %s -n %s", c.Name, c.Namespace)})
	var none *NoPrimaryError
	if !c.Spec.Stopped && !errors.As(err, &none) {
		p.Findings[0] = checkup.Finding{
			Check: p.Findings[0].Check, Level: checkup.Warn, Evidence: fmt.Sprintf("the server could not be looked at: %v", err),
			Next: fmt.Sprintf("kubectl auth can-i create pods --subresource exec -n %s", c.Namespace),
		}
		if !apierrors.IsForbidden(err) {
			p.Findings[0].Next = fmt.Sprintf("kbcli cluster logs %s -n %s --agent", c.Name, c.Namespace)
		}
	} else if !c.Spec.Stopped {
		p.Findings[0].Next = fmt.Sprintf("kbcli cluster logs %s -n %s", c.Name, c.Namespace)
	}
	out.Findings = append(out.Findings, p.Findings...)
	return out
}

func (r *Runtime) instancesOf(ctx context.Context, c *v1alpha1.Cluster) *checkup.Instances {
	in := &checkup.Instances{
		Names: checkup.Names{Namespace: c.Namespace, Cluster: c.Name}, Wanted: int(max(c.Spec.Replicas, 1)), Stopped: c.Spec.Stopped,
	}
	all, err := r.Instances(ctx, c)
	if err != nil {
		in.Err = err
		return in
	}
	for _, i := range all {
		if i.Role == "primary" {
			in.Primary = i.Name
		}
		if i.Status == "Running" && i.Role != "" {
			in.Serve = append(in.Serve, i.Name)
			continue
		}
		in.Others = append(in.Others, i.Name+" is "+i.Status)
	}
	return in
}
