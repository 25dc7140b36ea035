// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// Logs are those of the primary's pod; of the first pod if there is no primary, since a
// server that does not start is what logs are read for.
func (r *Runtime) Logs(ctx context.Context, c *v1alpha1.Cluster, o runtimes.LogOptions, w io.Writer) error {
	pod, err := r.primary(ctx, c.Namespace, c.Name)
	var none *NoPrimaryError
	name := names.Pod(c.Name, 0)
	switch {
	case err == nil:
		name = pod.Name
	case !errors.As(err, &none) || none.Pods == 0:
		return err
	}
	container := names.ContainerPostgreSQL
	if o.Agent {
		container = names.ContainerAgent
	}
	req := r.api.client.Get().AbsPath(of(c.Namespace, "pods", name, "log")).Param("container", container) // of two the server takes the first
	if o.Tail >= 0 {
		req.Param("tailLines", strconv.Itoa(o.Tail))
	}
	if o.Follow {
		req.Param("follow", "true")
	}
	lines, err := req.Stream(ctx)
	if err != nil {
		return fmt.Errorf("log of pod %s: %w", name, err)
	}
	defer lines.Close()
	if _, err := io.Copy(w, lines); err != nil && ctx.Err() == nil {
		return fmt.Errorf("log of pod %s: %w", name, err)
	}
	return nil
}
