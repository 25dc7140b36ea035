// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"helm.sh/helm/v3/pkg/action"

	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// Uninstall takes the release away and what serves the volumes of repositories, and with
// Definitions the kinds as well. The claims stay, and the Secrets with keys.
func (r *Runtime) Uninstall(ctx context.Context, u runtimes.Uninstallation) error {
	ctx, cancel := limit(ctx, u.Timeout)
	defer cancel()
	d, err := r.installation(ctx)
	if err != nil {
		return err
	}
	if d == nil {
		return &OperatorError{}
	}
	config, err := r.helm(d.Namespace)
	if err != nil {
		return err
	}
	un := action.NewUninstall(config)
	un.Timeout, un.Wait, un.DeletionPropagation = u.Timeout, true, "background"
	if _, err := un.Run(releaseOf(d)); err != nil {
		return fmt.Errorf("uninstall release %s: %w", releaseOf(d), err)
	}
	u.Step("Take the operator away")
	if err := r.removeServed(ctx, d.Namespace); err != nil {
		return err
	}
	u.Step("Take away what serves the volumes of repositories")
	if !u.Definitions {
		return nil
	}
	if err := r.removeDefinitions(ctx); err != nil {
		return err
	}
	u.Step("Take the definitions away, and their objects")
	return nil
}

// removeServed removes what the operator ran in its namespace: the pods that serve volumes of
// repositories, and the Services that lead to them. It returns when no pod is left. An
// installation that comes later makes them again of the BackupRepos, and finds the Secrets that
// clients know the servers by.
func (r *Runtime) removeServed(ctx context.Context, namespace string) error {
	// an operator that has yet to end would make anew what is removed
	if err := r.untilGone(ctx, namespace, names.LabelName+"="+names.Operator); err != nil {
		return err
	}
	served := names.LabelManagedBy + "=" + names.ManagedBy + "," + names.LabelName + "=" + names.RepositoryServer
	in := "/namespaces/" + url.PathEscape(namespace) + "/"
	for _, kind := range []string{"/apis/apps/v1" + in + "statefulsets", "/api/v1" + in + "services"} {
		var all struct {
			Items []metav1.PartialObjectMetadata
		}
		if err := r.api.get(ctx, &all, kind, map[string]string{"labelSelector": served}); err != nil {
			return fmt.Errorf("look for what serves volumes of repositories: %w", err)
		}
		for _, o := range all.Items {
			if err := r.remove(ctx, kind+"/"+url.PathEscape(o.Name)); err != nil {
				return err
			}
		}
	}
	if err := r.remove(ctx, "/apis/coordination.k8s.io/v1"+in+"leases/"+names.LeaderLease); err != nil {
		return err
	}
	return r.untilGone(ctx, namespace, served)
}

// remove deletes the object at path with what it owns. One that is gone is none.
func (r *Runtime) remove(ctx context.Context, path string) error {
	err := r.api.send(ctx, http.MethodDelete, path, "", map[string]string{"propagationPolicy": string(metav1.DeletePropagationBackground)}, nil)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// untilGone waits until there is no pod with the labels.
func (r *Runtime) untilGone(ctx context.Context, namespace, labels string) error {
	for {
		var pods corev1.PodList
		if err := r.api.get(ctx, &pods, of(namespace, "pods", ""), map[string]string{"labelSelector": labels}); err != nil {
			return fmt.Errorf("look for pods that have yet to end: %w", err)
		}
		if len(pods.Items) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			var left []string
			for _, p := range pods.Items {
				left = append(left, p.Namespace+"/"+p.Name)
			}
			return fmt.Errorf("wait for pods %s to end: %w", strings.Join(left, ", "), context.Cause(ctx))
		case <-time.After(300 * time.Millisecond):
		}
	}
}
