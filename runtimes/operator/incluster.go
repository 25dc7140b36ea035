// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"log/slog"

	"k8s.io/client-go/rest"

	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// RunInCluster is Run in a pod of the Kubernetes that it acts upon, as the pod's
// ServiceAccount. It fills in Objects.
func RunInCluster(ctx context.Context, o Options) error {
	config, objects, err := InCluster(o.Log)
	if err != nil {
		return err
	}
	o.Objects = objects
	return Run(ctx, config, o)
}

// InCluster is the way from a pod to its API server, and the objects there.
func InCluster(log *slog.Logger) (*rest.Config, store.Store, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("find the API server: %w", err)
	}
	config.QPS = -1 // the server has its own measure of fairness
	objects, err := kube.New(config, log)
	if err != nil {
		return nil, nil, err
	}
	return config, objects, nil
}
