// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"log/slog"

	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes"
)

// openKubernetes opens the Kubernetes of a context.
func openKubernetes(a *app, k choice, log *slog.Logger) (runtimes.Runtime, error) {
	rt, err := kubernetes.Open(kubernetes.Options{
		Kubeconfig: k.files, Context: k.name, Clock: a.clock, Log: log, Version: version,
	})
	if err != nil {
		return nil, err // and not a Runtime that is a nil of its type
	}
	return rt, nil
}

// kubernetesContexts are those of kubeconfig files.
func kubernetesContexts(files []string) ([]kubernetes.Context, error) {
	return kubernetes.Contexts(files)
}
