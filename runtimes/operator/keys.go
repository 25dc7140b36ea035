// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// repositoryFiles are the keys that the agents of a cluster are given: the files that the
// repositories name which they read or write, as the installation's Secret has them.
func (l *clusterLoop) repositoryFiles(ctx context.Context, c *v1alpha1.Cluster) (map[string][]byte, error) {
	wanted, err := l.needed(ctx, c)
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for _, o := range wanted {
		for _, path := range repos.SecretFiles(o) {
			if key, ok := specs.SecretKey(path); ok {
				keys[key] = true
			}
		}
	}
	out := map[string][]byte{}
	if len(keys) == 0 {
		return out, nil
	}
	var all core.Secret
	err = l.live.Get(ctx, client.ObjectKey{Namespace: l.own, Name: specs.InstallationSecret}, &all)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read the credentials of repositories: %w", err)
	}
	for key := range keys {
		if b, ok := all.Data[key]; ok {
			out[key] = b
		}
	}
	return out, nil
}

// needed are the repositories of a cluster; while it is restored those of its source too,
// and where nobody knows which those are, all.
func (l *clusterLoop) needed(ctx context.Context, c *v1alpha1.Cluster) ([]*v1alpha1.BackupRepo, error) {
	all, err := store.List[*v1alpha1.BackupRepo](ctx, l.objects, "", nil)
	if unreadable(err) != nil {
		return nil, err
	}
	names := map[string]bool{}
	if err := l.uses(ctx, c.Namespace, c.Name, names); err != nil {
		return nil, err
	}
	if r := c.Spec.Restore; r != nil && (c.Status.Restore == nil || c.Status.Restore.Phase != v1alpha1.RestoreCompleted) {
		source := map[string]bool{}
		if err := l.uses(ctx, cmp.Or(r.SourceNamespace, c.Namespace), r.SourceCluster, source); err != nil {
			return nil, err
		}
		if len(source) == 0 {
			return all, nil
		}
		for name := range source {
			names[name] = true
		}
	}
	var out []*v1alpha1.BackupRepo
	for _, o := range all {
		if names[o.Name] || o.Spec.Default && names[""] {
			out = append(out, o)
		}
	}
	return out, nil
}

// uses adds the repositories that a cluster's policies name, "" for the default one, and
// those that its backups lie in.
func (l *clusterLoop) uses(ctx context.Context, namespace, cluster string, names map[string]bool) error {
	policies, err := store.List[*v1alpha1.BackupPolicy](ctx, l.objects, namespace, nil)
	if unreadable(err) != nil {
		return err
	}
	for _, p := range policies {
		if p.Spec.ClusterRef == cluster {
			names[p.Spec.BackupRepoName] = true
		}
	}
	backups, err := store.List[*v1alpha1.Backup](ctx, l.objects, namespace, map[string]string{v1alpha1.LabelCluster: cluster})
	if unreadable(err) != nil {
		return err
	}
	for _, b := range backups {
		if b.Spec.ClusterRef == cluster && b.Status.Repo != "" {
			names[b.Status.Repo] = true
		}
	}
	return nil
}

// unreadable passes over objects that another release wrote: the others count.
func unreadable(err error) error {
	var broken store.BrokenObjects
	if errors.As(err, &broken) {
		return nil
	}
	return err
}

// handKeys has the kubelet bring changed keys to pods that run.
func (l *clusterLoop) handKeys(ctx context.Context, s *seen) error {
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(core.SchemeGroupVersion.WithKind("Secret"))
	err := l.client.Get(ctx, client.ObjectKey{Namespace: s.cluster.Namespace, Name: specs.RepositoriesSecret(s.cluster.Name)}, secret)
	if err != nil {
		return client.IgnoreNotFound(err) // it is not remembered yet: that it came wakes this loop
	}
	want := secret.ResourceVersion
	for i := range s.pods {
		p := &s.pods[i]
		if p.DeletionTimestamp != nil || p.Annotations[specs.AnnotationKeys] == want {
			continue
		}
		before := p.DeepCopy()
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[specs.AnnotationKeys] = want
		if err := l.client.Patch(ctx, p, client.MergeFrom(before)); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("tell pod %s of new keys: %w", p.Name, err)
		}
	}
	return nil
}
