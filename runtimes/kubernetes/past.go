// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/ask"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/store"
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

// place is a container that runs kbcli.
type place struct{ namespace, pod, container string }

// places are where a question can be put, the best first: beside the primary, beside
// another server of the cluster, in the operator.
func (r *Runtime) places(ctx context.Context, src runtimes.Source) ([]place, error) {
	var out []place
	all, err := r.pods(ctx, src.Namespace, src.Cluster)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil {
			continue
		}
		at := place{p.Namespace, p.Name, names.ContainerAgent}
		if p.Labels[names.LabelRole] == names.RolePrimary {
			out = append([]place{at}, out...)
		} else {
			out = append(out, at)
		}
	}
	operators, err := r.operators(ctx)
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	for _, d := range operators {
		var l corev1.PodList
		err := r.api.get(ctx, &l, of(d.Namespace, "pods", ""), map[string]string{"labelSelector": names.LabelName + "=" + names.Operator})
		if unseen(err) != nil {
			return nil, err
		}
		for _, p := range l.Items {
			if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
				out = append(out, place{p.Namespace, p.Name, names.ContainerOperator})
			}
		}
	}
	return out, nil
}

// ask puts a question where it can be answered.
func (r *Runtime) ask(ctx context.Context, q ask.Question) (ask.Answer, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return ask.Answer{}, err
	}
	all, err := r.places(ctx, q.Source)
	if err != nil {
		return ask.Answer{}, err
	}
	if len(all) == 0 {
		return ask.Answer{}, &OperatorError{}
	}
	var failures error
	for _, at := range all {
		text, err := r.exec(ctx, at, ask.Command, body)
		if err == nil {
			return ask.Read(text)
		}
		if ctx.Err() != nil {
			return ask.Answer{}, ctx.Err()
		}
		failures = errors.Join(failures, err)
	}
	return ask.Answer{}, failures
}

// exec runs a command in a container and returns what it prints.
func (r *Runtime) exec(ctx context.Context, at place, command []string, stdin []byte) ([]byte, error) {
	req := r.api.client.Post().AbsPath(of(at.namespace, "pods", at.pod, "exec")).
		Param("container", at.container).Param("stdin", "true").Param("stdout", "true").Param("stderr", "true")
	for _, word := range command {
		req.Param("command", word)
	}
	over, err := remotecommand.NewWebSocketExecutor(r.config, http.MethodGet, req.URL().String())
	if err != nil {
		return nil, err
	}
	plain, err := remotecommand.NewSPDYExecutor(r.config, http.MethodPost, req.URL())
	if err != nil {
		return nil, err
	}
	runner, err := remotecommand.NewFallbackExecutor(over, plain, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return nil, err
	}
	var out, said bytes.Buffer
	err = runner.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: bytes.NewReader(stdin), Stdout: &out, Stderr: &said})
	if err != nil {
		return nil, fmt.Errorf("%s in pod %s/%s: %w: %s", strings.Join(command, " "), at.namespace, at.pod, err, strings.TrimSpace(said.String()))
	}
	return out.Bytes(), nil
}
