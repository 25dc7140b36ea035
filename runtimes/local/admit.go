// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"os"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

var (
	_ runtimes.Admitter = (*Runtime)(nil)
	_ runtimes.Roomer   = (*Runtime)(nil)
	_ runtimes.Hinter   = (*NoPostgresError)(nil)
)

// Admit refuses more than one server to a cluster: a second one on the same machine
// and disk would save nobody.
func (r *Runtime) Admit(c *v1alpha1.Cluster) error {
	if c.Spec.Replicas > 1 {
		return fmt.Errorf("replicas=%d: on one machine a cluster has one server, because a second on the same disk would be lost with it", c.Spec.Replicas)
	}
	if major := majorOf(c.Spec.ClusterVersionRef); major != 0 && !attached(c) {
		if _, err := findInstall(major); err != nil {
			return err
		}
	}
	return nil
}

// CheckRoom looks where the cluster's data will be.
func (r *Runtime) CheckRoom(p *restore.Plan, c *v1alpha1.Cluster) error {
	data := r.data(c.Namespace, c.Name)
	if err := p.Onto(data); err != nil {
		return err
	}
	if _, err := os.Lstat(data); err == nil {
		return &restore.NotEmptyError{Dir: data}
	}
	return p.CheckRoom(restore.Into{DataDirectory: data})
}

// Unenforced is what only Kubernetes makes true.
func (r *Runtime) Unenforced() []string { return []string{"storage", "storageClass", "cpu", "memory"} }
