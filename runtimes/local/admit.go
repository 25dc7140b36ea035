// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
)

var _ runtimes.Admitter = (*Runtime)(nil)

// Admit refuses more than one server to a cluster: a second one on the same machine
// and disk would save nobody.
func (r *Runtime) Admit(c *v1alpha1.Cluster) error {
	if c.Spec.Replicas > 1 {
		return fmt.Errorf("replicas=%d: on one machine a cluster has one server, because a second on the same disk would be lost with it", c.Spec.Replicas)
	}
	return nil
}

// Unenforced is what only Kubernetes makes true.
func (r *Runtime) Unenforced() []string { return []string{"storage", "storageClass", "cpu", "memory"} }
