// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"strings"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/runtimes"
)

// growVolumes asks for larger volumes where the cluster does. It never asks for smaller
// ones. The words are why some volume does not grow; empty if all do.
func (l *clusterLoop) growVolumes(ctx context.Context, s *seen) (string, error) {
	var words []string
	for i := range s.claims {
		c := &s.claims[i]
		have, want := c.Spec.Resources.Requests[core.ResourceStorage], s.cluster.Spec.Storage
		if c.DeletionTimestamp != nil || want.Cmp(have) <= 0 {
			continue
		}
		why, err := cannotGrow(ctx, l.live, c)
		if err != nil {
			return "", err
		}
		if why != "" {
			words = append(words, fmt.Sprintf("volume %s stays at %s: %s", c.Name, have.String(), why))
			continue
		}
		before := c.DeepCopy()
		c.Spec.Resources.Requests[core.ResourceStorage] = want
		err = l.client.Patch(ctx, c, client.MergeFrom(before))
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			words = append(words, fmt.Sprintf("volume %s stays at %s: %v", c.Name, have.String(), err))
			continue
		}
		if err != nil {
			return "", fmt.Errorf("grow volume %s: %w", c.Name, err)
		}
		l.event(s.cluster, runtimes.EventNormal, "VolumeGrows", fmt.Sprintf("volume %s grows from %s to %s", c.Name, have.String(), want.String()))
	}
	return strings.Join(words, "; "), nil
}

// cannotGrow says why a volume cannot be larger; empty if it can.
func cannotGrow(ctx context.Context, live client.Reader, c *core.PersistentVolumeClaim) (string, error) {
	if c.Status.Phase != core.ClaimBound {
		return "it is not bound yet", nil
	}
	if c.Spec.StorageClassName == nil || *c.Spec.StorageClassName == "" {
		return "it has no storage class that could make it larger", nil
	}
	var class storage.StorageClass
	err := live.Get(ctx, client.ObjectKey{Name: *c.Spec.StorageClassName}, &class)
	if apierrors.IsNotFound(err) {
		return "its storage class " + *c.Spec.StorageClassName + " is gone", nil
	}
	if err != nil {
		return "", fmt.Errorf("read storage class %s: %w", *c.Spec.StorageClassName, err)
	}
	if class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion {
		return "its storage class " + class.Name + " does not let volumes grow (allowVolumeExpansion)", nil
	}
	return "", nil
}
