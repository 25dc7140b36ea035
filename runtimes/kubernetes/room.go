// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

var _ runtimes.Roomer = (*Runtime)(nil)

// SmallVolumeError says that what is restored does not fit into the volume that a cluster
// asks for.
type SmallVolumeError struct {
	Storage    string // as the cluster asks for it
	Have, Need int64  // bytes
}

func (e *SmallVolumeError) Error() string {
	return fmt.Sprintf("the new cluster asks for a volume of %s, and the restore needs %s", e.Storage, v1alpha1.FormatSize(e.Need))
}

// CheckRoom compares a plan with the volume that the new cluster asks for. Of a
// VolumeSnapshot the operator makes the volume as large as it needs to be.
func (r *Runtime) CheckRoom(p *restore.Plan, c *v1alpha1.Cluster) error {
	have := c.Spec.Storage.Value()
	if have == 0 {
		d := &v1alpha1.Cluster{}
		d.SetDefaults()
		have = d.Spec.Storage.Value()
	}
	if need := p.Need(0); p.Snapshot == "" && have < need {
		return &SmallVolumeError{resource.NewQuantity(have, resource.BinarySI).String(), have, need}
	}
	return nil
}
