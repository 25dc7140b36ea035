// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

//go:generate go -C ../../tools run ./crds -api ../api/v1alpha1 -out ../deploy/helm/crds

// AddToScheme teaches s every kind and its list.
func AddToScheme(s *runtime.Scheme) error {
	for _, k := range kinds {
		gv := k.GroupVersionKind().GroupVersion()
		s.AddKnownTypes(gv, k.New(), k.NewList())
		metav1.AddToGroupVersion(s, gv)
	}
	return nil
}
