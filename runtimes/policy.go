// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// FirstPolicy is the policy that is made with a cluster.
func FirstPolicy(c *v1alpha1.Cluster) *v1alpha1.BackupPolicy {
	return &v1alpha1.BackupPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   c.Namespace,
			Name:        v1alpha1.DefaultBackupPolicyName(c.Name),
			Labels:      map[string]string{v1alpha1.LabelCluster: c.Name},
			Annotations: map[string]string{v1alpha1.AnnotationDefaultPolicy: "true"},
		},
		Spec: v1alpha1.BackupPolicySpec{ClusterRef: c.Name},
	}
}
