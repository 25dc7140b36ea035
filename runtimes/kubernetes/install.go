// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"

	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// releaseName is what Helm calls the installation, unless somebody installed the chart
// under another name.
const releaseName = names.Operator

var _ runtimes.Installer = (*Runtime)(nil)

// InstalledElsewhereError says that there is an installation in another namespace. There is
// one in a Kubernetes: the kinds have no namespace.
type InstalledElsewhereError struct{ Namespace, Asked string }

func (e *InstalledElsewhereError) Error() string {
	return fmt.Sprintf("KubeBlocks is installed in namespace %s", e.Namespace)
}

// SettingsError says which settings the chart refuses.
type SettingsError struct{ Reason string }

func (e *SettingsError) Error() string { return "the settings are refused: " + e.Reason }

// Install installs the chart that is in this program.
func (r *Runtime) Install(ctx context.Context, i runtimes.Installation) error {
	ctx, cancel := limit(ctx, i.Timeout)
	defer cancel()
	found, err := r.installation(ctx)
	if err != nil {
		return err
	}
	if found != nil && found.Namespace != i.Namespace {
		return &InstalledElsewhereError{Namespace: found.Namespace, Asked: i.Namespace}
	}
	i.Step("Look for an installation")
	return r.bring(ctx, i, found)
}

// Configure changes settings of what is installed, wherever it is, and brings it to this
// program's release.
func (r *Runtime) Configure(ctx context.Context, i runtimes.Installation) error {
	ctx, cancel := limit(ctx, i.Timeout)
	defer cancel()
	found, err := r.installation(ctx)
	if err != nil {
		return err
	}
	if found == nil {
		return &OperatorError{}
	}
	i.Step("Look for the installation")
	i.Namespace = found.Namespace
	return r.bring(ctx, i, found)
}

func limit(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// installation is the operator's Deployment; nil where there is none.
func (r *Runtime) installation(ctx context.Context) (*appsv1.Deployment, error) {
	all, err := r.operators(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for the operator: %w", err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return &all[0], nil
}

// releaseOf is Helm's name of an installation.
func releaseOf(d *appsv1.Deployment) string {
	if d != nil && d.Annotations["meta.helm.sh/release-name"] != "" {
		return d.Annotations["meta.helm.sh/release-name"]
	}
	return releaseName
}

// bring makes the definitions and the release what this program has, and waits.
func (r *Runtime) bring(ctx context.Context, i runtimes.Installation, found *appsv1.Deployment) error {
	c, err := loadChart(r.version)
	if err != nil {
		return err
	}
	if err := r.makeNamespace(ctx, i.Namespace); err != nil {
		return err
	}
	if err := r.applyDefinitions(ctx, c); err != nil {
		return err
	}
	i.Step("Apply the definitions of clusters and backups")
	if err := r.applyRelease(ctx, i, releaseOf(found), c); err != nil {
		return err
	}
	i.Step("Apply the chart of release " + r.version)
	if !i.Wait {
		return nil
	}
	if err := r.awaitOperator(ctx, i.Namespace); err != nil {
		return err
	}
	i.Step("Wait until the operator runs")
	return nil
}

// applyRelease installs the release, or upgrades it: settings that were made before stay.
func (r *Runtime) applyRelease(ctx context.Context, i runtimes.Installation, name string, c *chart.Chart) error {
	config, err := r.helm(i.Namespace)
	if err != nil {
		return err
	}
	_, err = config.Releases.Last(name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		in := action.NewInstall(config)
		in.ReleaseName, in.Namespace, in.SkipCRDs, in.Timeout = name, i.Namespace, true, i.Timeout
		_, err = in.RunWithContext(ctx, c, i.Values)
		return installed(name, err)
	}
	if err != nil {
		return fmt.Errorf("read release %s: %w", name, err)
	}
	up := action.NewUpgrade(config)
	up.Namespace, up.SkipCRDs, up.Timeout, up.ResetThenReuseValues, up.MaxHistory = i.Namespace, true, i.Timeout, true, 10
	_, err = up.RunWithContext(ctx, name, c, i.Values)
	return installed(name, err)
}

func installed(name string, err error) error {
	if err == nil {
		return nil
	}
	if reason, ok := schemaReason(err); ok {
		return &SettingsError{Reason: reason}
	}
	return fmt.Errorf("install release %s: %w", name, err)
}

const lookInterval = 500 * time.Millisecond

// awaitOperator waits until every operator that is wanted is of the present settings.
func (r *Runtime) awaitOperator(ctx context.Context, namespace string) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	var last appsv1.Deployment
	for {
		var d appsv1.Deployment
		err := r.api.get(ctx, &d, deploymentPath(namespace), nil)
		switch {
		case err == nil && settled(d):
			return nil
		case err == nil:
			last = d
		case ctx.Err() == nil && !apierrors.IsNotFound(err):
			return fmt.Errorf("look at the operator: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return &OperatorError{Namespace: namespace, Reason: r.whyWaiting(context.WithoutCancel(ctx), last), TimedOut: true}
		}
	}
}

func deploymentPath(namespace string) string {
	return "/apis/apps/v1/namespaces/" + namespace + "/deployments/" + names.Operator
}

func settled(d appsv1.Deployment) bool {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	s := d.Status
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
}

// Installed is what there is.
func (r *Runtime) Installed(ctx context.Context) (*runtimes.Installed, error) {
	d, err := r.installation(ctx)
	if err != nil || d == nil {
		return nil, err
	}
	x := &runtimes.Installed{Place: "in namespace " + d.Namespace, Version: d.Labels["app.kubernetes.io/version"], Settings: map[string]string{}}
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	x.State = fmt.Sprintf("Of %d operators %d run.", want, d.Status.AvailableReplicas)
	if d.Status.AvailableReplicas == 0 {
		x.State = fmt.Sprintf("No operator runs: %s.", whyDown(*d))
	}
	config, err := r.helm(d.Namespace)
	if err != nil {
		return nil, err
	}
	rel, err := config.Releases.Last(releaseOf(d))
	if errors.Is(err, driver.ErrReleaseNotFound) { // its objects were applied by other means
		return x, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read release %s: %w", releaseOf(d), err)
	}
	x.Settings, err = settingsOf(rel)
	return x, err
}

// settingsOf are the values of a release: the chart's, and over them those that were set.
func settingsOf(rel *release.Release) (map[string]string, error) {
	values, err := coalesce(rel.Chart, rel.Config)
	if err != nil {
		return nil, fmt.Errorf("read the settings of release %s: %w", rel.Name, err)
	}
	out := map[string]string{}
	maps.Insert(out, leaves("", values))
	return out, nil
}
