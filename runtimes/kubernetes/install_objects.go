// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"helm.sh/helm/v3/pkg/chart"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// fieldOwner is who this program is to the API server.
const fieldOwner = "kbcli"

// send writes body, JSON or YAML, to path and ignores the answer.
func (a api) send(ctx context.Context, method, path string, kind types.PatchType, query map[string]string, body []byte) error {
	r := a.client.Verb(method).AbsPath(path)
	for k, v := range query {
		r.Param(k, v)
	}
	if body != nil {
		if kind == "" {
			kind = "application/json"
		}
		r.SetHeader("Content-Type", string(kind)).Body(body)
	}
	if err := r.Do(ctx).Error(); err != nil {
		return kube.Unreachable(err)
	}
	return nil
}

// makeNamespace makes the namespace of the installation, under the strictest standard that
// Kubernetes has for pods. One that is there stays as it is.
func (r *Runtime) makeNamespace(ctx context.Context, name string) error {
	var ns corev1.Namespace
	err := r.api.get(ctx, &ns, of("", "namespaces", name), nil)
	if err == nil || apierrors.IsForbidden(err) {
		return nil // who may not look at it finds out what they may do in it
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for namespace %s: %w", name, err)
	}
	ns = corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}},
	}
	body, err := json.Marshal(ns)
	if err != nil {
		return err
	}
	if err := r.api.send(ctx, http.MethodPost, of("", "namespaces", ""), "", nil, body); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make namespace %s: %w", name, err)
	}
	return nil
}

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// applyDefinitions makes the kinds what this release knows. Helm itself would never change
// one that is there.
func (r *Runtime) applyDefinitions(ctx context.Context, c *chart.Chart) error {
	for _, d := range c.CRDObjects() {
		var about metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(d.File.Data, &about); err != nil {
			return fmt.Errorf("read %s: %w", d.Filename, err)
		}
		query := map[string]string{"fieldManager": fieldOwner, "force": "true"}
		if err := r.api.send(ctx, http.MethodPatch, definitions+"/"+about.Name, types.ApplyYAMLPatchType, query, d.File.Data); err != nil {
			return fmt.Errorf("apply definition %s: %w", about.Name, err)
		}
	}
	for _, k := range v1alpha1.Kinds() {
		if err := r.awaitKind(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// awaitKind waits until objects of a kind can be listed.
func (r *Runtime) awaitKind(ctx context.Context, k v1alpha1.Kind) error {
	for {
		_, err := r.objects.List(ctx, k.Name, "", nil)
		var none *kube.NotInstalledError
		if !apierrors.IsNotFound(err) && !errors.As(err, &none) {
			return nil // objects that this release cannot read are a matter for later
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the kind %s: %w", k.Name, ctx.Err())
		case <-time.After(lookInterval / 5):
		}
	}
}

// removeDefinitions takes the kinds away. Nobody acts any more: what an object waits for
// before it goes would never happen, and a Backup that goes must not take its bytes along.
func (r *Runtime) removeDefinitions(ctx context.Context) error {
	c, err := loadChart(r.version)
	if err != nil {
		return err
	}
	release := []byte(`{"metadata":{"finalizers":null}}`)
	for _, k := range v1alpha1.Kinds() {
		var all struct {
			Items []metav1.PartialObjectMetadata
		}
		err := r.api.get(ctx, &all, fmt.Sprintf("/apis/%s/%s/%s", k.Group, v1alpha1.Version, k.Plural), nil)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", k.Plural, err)
		}
		for _, o := range all.Items {
			if len(o.Finalizers) == 0 {
				continue
			}
			path := fmt.Sprintf("/apis/%s/%s/%s/%s", k.Group, v1alpha1.Version, k.Plural, url.PathEscape(o.Name))
			if o.Namespace != "" {
				path = fmt.Sprintf("/apis/%s/%s/namespaces/%s/%s/%s", k.Group, v1alpha1.Version, url.PathEscape(o.Namespace), k.Plural, url.PathEscape(o.Name))
			}
			if err := r.api.send(ctx, http.MethodPatch, path, types.MergePatchType, nil, release); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("let go of %s %s: %w", k.Name, o.Name, err)
			}
		}
	}
	var errs []error
	for _, d := range c.CRDObjects() {
		var about metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(d.File.Data, &about); err != nil {
			return fmt.Errorf("read %s: %w", d.Filename, err)
		}
		if err := r.api.send(ctx, http.MethodDelete, definitions+"/"+about.Name, "", nil, nil); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove definition %s: %w", about.Name, err))
		}
	}
	return errors.Join(errs...)
}

// whyWaiting says why operators do not run: the pods know more than their Deployment.
func (r *Runtime) whyWaiting(ctx context.Context, d appsv1.Deployment) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var pods corev1.PodList
	query := map[string]string{"labelSelector": names.LabelName + "=" + names.Operator}
	if err := r.api.get(ctx, &pods, of(d.Namespace, "pods", ""), query); err != nil || d.Namespace == "" {
		return whyDown(d)
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil && w.Reason != "ContainerCreating" {
				return fmt.Sprintf("pod %s: %s: %s", p.Name, w.Reason, w.Message)
			}
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				return fmt.Sprintf("pod %s: %s", p.Name, c.Message)
			}
		}
	}
	return whyDown(d)
}
