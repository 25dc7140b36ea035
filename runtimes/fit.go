// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
)

// Fitter is a Runtime that gives a cluster volumes of the size and class that it asks for.
type Fitter interface {
	// Needs is what the volumes of a cluster must be that is made of a plan, and which
	// driver makes those of a storage class; of an empty one that of the snapshotted volume,
	// or the default. What nobody may tell whoever asks is left out.
	Needs(ctx context.Context, p *restore.Plan, class string) (n Needs, driver string, err error)
}

// Needs is what the volumes of a restored cluster must be.
type Needs struct {
	Bytes    int64  // the least size
	Snapshot string // what the first volume is made of: "VolumeSnapshot namespace/name"; empty: of nothing
	Driver   string // whose that snapshot is
	Class    string // of the volume that was snapshotted
}

// NeedsOf is what a plan needs that copies its files.
func NeedsOf(p *restore.Plan) Needs { return Needs{Bytes: p.NeedBytes} }

// NoFitError says that a cluster asks for volumes that cannot hold what it is restored
// from.
type NoFitError struct {
	Reason string
	Set    string // what to ask for instead, as --set has it
}

func (e *NoFitError) Error() string { return e.Reason }

// size is the least that people would ask for.
func (n Needs) size() resource.Quantity {
	const unit = 1 << 20
	return *resource.NewQuantity((n.Bytes+unit-1)/unit*unit, resource.BinarySI)
}

// Grow gives spec the size that is needed; it never makes a volume smaller. A copy gets a
// quarter more, to begin its life with.
func (n Needs) Grow(spec *v1alpha1.ClusterSpec) {
	want := n
	if n.Snapshot == "" {
		want.Bytes += n.Bytes / 4
	}
	if size := want.size(); size.Cmp(spec.Storage) > 0 {
		spec.Storage = size
	}
}

// Judge says why volumes as spec asks for them cannot hold what is restored: a
// *NoFitError. driver makes the volumes of spec's class; empty if that is not known.
func (n Needs) Judge(spec *v1alpha1.ClusterSpec, driver string) error {
	if spec.Storage.Value() < n.Bytes {
		size := n.size()
		why := "the restore needs"
		if n.Snapshot != "" {
			why = n.Snapshot + " has"
		}
		return &NoFitError{fmt.Sprintf("storage %s is too small: %s %s", spec.Storage.String(), why, size.String()), "storage=" + size.String()}
	}
	if n.Driver != "" && driver != "" && driver != n.Driver {
		of := "the default storage class"
		if spec.StorageClassName != "" {
			of = "storage class " + spec.StorageClassName
		}
		e := &NoFitError{Reason: fmt.Sprintf("volumes of %s are made by %s, and %s is of %s", of, driver, n.Snapshot, n.Driver)}
		if n.Class != "" {
			e.Set = "storageClass=" + n.Class
		}
		return e
	}
	return nil
}
