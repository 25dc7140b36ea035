// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// Options are what a Runtime has to know.
type Options struct {
	Kubeconfig []string // the files, the first counts most
	Context    string
	Clock      func() time.Time
	Log        *slog.Logger
	Version    string
}

// Runtime is one Kubernetes cluster.
type Runtime struct {
	objects *kube.Store
	api     api
	config  *rest.Config
	clock   func() time.Time
	log     *slog.Logger
	version string // of this program
}

var (
	_ runtimes.Runtime        = (*Runtime)(nil)
	_ runtimes.InstanceLister = (*Runtime)(nil)
	_ runtimes.EventReader    = (*Runtime)(nil)
	_ runtimes.LogReader      = (*Runtime)(nil)
	_ runtimes.FarKeeper      = (*Runtime)(nil)
	_ runtimes.EndpointLister = (*Runtime)(nil)
	_ runtimes.Fitter         = (*Runtime)(nil)
)

// Open reads the kubeconfig. It asks the API server nothing.
func Open(o Options) (*Runtime, error) {
	config, err := restConfig(o.Kubeconfig, o.Context, "kbcli/"+o.Version)
	if err != nil {
		return nil, err
	}
	return open(config, o)
}

func open(config *rest.Config, o Options) (*Runtime, error) {
	objects, err := kube.New(config, o.Log)
	if err != nil {
		return nil, err
	}
	a, err := newAPI(config)
	if err != nil {
		return nil, err
	}
	return &Runtime{objects: objects, api: a, config: config, clock: o.Clock, log: o.Log, version: o.Version}, nil
}

// Store keeps the objects in the API server.
func (r *Runtime) Store() store.Store { return r.objects }

// OperatorError says that nobody acts upon objects.
type OperatorError struct {
	Namespace string // where the operator is installed; empty if it is not
	Reason    string
	TimedOut  bool // somebody waited for it
}

func (e *OperatorError) Error() string {
	if e.Namespace == "" {
		return "KubeBlocks is not installed in this Kubernetes cluster"
	}
	return fmt.Sprintf("the operator of KubeBlocks in namespace %s does not run: %s", e.Namespace, e.Reason)
}

// Ready is nil when the kinds are known and the operator runs. Who may not look at the
// operator is not kept from asking it for something.
func (r *Runtime) Ready(ctx context.Context) error {
	for _, k := range v1alpha1.Kinds() {
		var list struct{}
		err := r.api.get(ctx, &list, fmt.Sprintf("/apis/%s/%s", k.Group, v1alpha1.Version), nil)
		if apierrors.IsNotFound(err) {
			return &OperatorError{}
		}
		if err != nil {
			return fmt.Errorf("look for KubeBlocks: %w", err)
		}
	}
	found, err := r.operators(ctx)
	if apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the operator: %w", err)
	}
	if len(found) == 0 {
		return &OperatorError{}
	}
	for _, d := range found {
		if d.Status.AvailableReplicas > 0 {
			return nil
		}
	}
	return &OperatorError{Namespace: found[0].Namespace, Reason: whyDown(found[0])}
}

func whyDown(d appsv1.Deployment) string {
	if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
		return "it was scaled to 0"
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentAvailable && c.Status != "True" && c.Message != "" {
			return c.Message
		}
	}
	return "none of its pods is available"
}

// operators are the Deployments that are one: that of kb-system, or those elsewhere.
func (r *Runtime) operators(ctx context.Context) ([]appsv1.Deployment, error) {
	var d appsv1.Deployment
	err := r.api.get(ctx, &d, deploymentPath(names.SystemNamespace), nil)
	if err == nil {
		return []appsv1.Deployment{d}, nil
	}
	if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return nil, err
	}
	var l appsv1.DeploymentList
	err = r.api.get(ctx, &l, "/apis/apps/v1/deployments", map[string]string{"labelSelector": names.LabelName + "=" + names.Operator})
	return l.Items, err
}
