// SPDX-License-Identifier: Apache-2.0

package examination

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Patience is how long each thing that is examined may take to answer.
const Patience = 5 * time.Second

// within gives f a moment. A directory of a network that hangs cannot be interrupted:
// its goroutine is left behind, and ends with the process at the latest.
func within[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	type answer struct {
		value T
		err   error
	}
	ch := make(chan answer, 1)
	go func() {
		defer cancel()
		v, err := f(ctx)
		ch <- answer{v, err}
	}()
	select {
	case a := <-ch:
		return a.value, a.err
	case <-time.After(Patience + time.Second/2):
	}
	var none T
	return none, fmt.Errorf("no answer within %s: %w", Patience, context.DeadlineExceeded)
}

// Scene is the objects there are: what the subjects of an examination have in common.
type Scene struct {
	Clock    func() time.Time
	Clusters []*v1alpha1.Cluster
	Repos    []*v1alpha1.BackupRepo
	Policies []*v1alpha1.BackupPolicy
	Backups  []*v1alpha1.Backup
	Broken   store.BrokenObjects
}

// Look reads the objects of a namespace, or of all with an empty one. Those that cannot be
// read are told beside the others.
func Look(ctx context.Context, objects store.Store, namespace string, clock func() time.Time) (*Scene, error) {
	s := &Scene{Clock: clock}
	keep := func(err error) error {
		var b store.BrokenObjects
		if errors.As(err, &b) {
			s.Broken = append(s.Broken, b...)
			return nil
		}
		return err
	}
	var errs [4]error
	s.Clusters, errs[0] = store.List[*v1alpha1.Cluster](ctx, objects, namespace, nil)
	s.Repos, errs[1] = store.List[*v1alpha1.BackupRepo](ctx, objects, "", nil)
	s.Policies, errs[2] = store.List[*v1alpha1.BackupPolicy](ctx, objects, namespace, nil)
	s.Backups, errs[3] = store.List[*v1alpha1.Backup](ctx, objects, namespace, nil)
	for _, err := range errs {
		if err := keep(err); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Choose picks the clusters of a namespace, or those that are named, by namespace and name.
func (s *Scene) Choose(namespace string, names []string) ([]*v1alpha1.Cluster, error) {
	var out []*v1alpha1.Cluster
	for _, c := range s.Clusters {
		if (namespace == "" || c.Namespace == namespace) && (len(names) == 0 || slices.Contains(names, c.Name)) {
			out = append(out, c)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(out, func(c *v1alpha1.Cluster) bool { return c.Name == name }) {
			if b := s.unread(v1alpha1.KindCluster, namespace, name); b != nil {
				return nil, b
			}
			return nil, store.NotFound(v1alpha1.KindFor[*v1alpha1.Cluster](), name)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.Cluster) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// Unreadable has a finding for each object that cannot be read; nil where there is none.
// next says what to do about one.
func (s *Scene) Unreadable(next func(*store.BrokenObject) string) []runtimes.Examined {
	if len(s.Broken) == 0 {
		return nil
	}
	x := runtimes.Examined{Subject: "objects"}
	for _, b := range s.Broken {
		x.Findings = append(x.Findings, checkup.Finding{
			Check: "object-readable", Level: checkup.Fail, Evidence: b.Error(), Next: next(b),
		})
	}
	return []runtimes.Examined{x}
}

// policy is the one that speaks for a cluster; nil if there is none.
func (s *Scene) policy(c *v1alpha1.Cluster) *v1alpha1.BackupPolicy {
	var found *v1alpha1.BackupPolicy
	for _, p := range s.Policies {
		if p.Namespace == c.Namespace && p.Spec.ClusterRef == c.Name && p.DeletionTimestamp == nil && (found == nil || p.IsDefault()) {
			found = p
		}
	}
	return found
}

// unread is the object of a name that is there and cannot be read; nil if there is none.
func (s *Scene) unread(kind, namespace, name string) *store.BrokenObject {
	for _, b := range s.Broken {
		if b.Key.Kind == kind && b.Key.Name == name && (namespace == "" || b.Key.Namespace == namespace) {
			return b
		}
	}
	return nil
}

// repoOf is the name of the repository that a policy means.
func (s *Scene) repoOf(p *v1alpha1.BackupPolicy) string {
	if p != nil && p.Spec.BackupRepoName != "" {
		return p.Spec.BackupRepoName
	}
	for _, o := range s.Repos {
		if o.Spec.Default {
			return o.Name
		}
	}
	return ""
}
