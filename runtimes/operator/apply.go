// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// fieldOwner is who the operator is to the API server. What others set in fields that
// the operator says nothing about stays.
const fieldOwner = client.FieldOwner("kubeblocks-operator")

// applier brings objects to the API server, and remembers what it brought: as long as
// neither that nor the object changes, nothing is asked.
type applier struct {
	client client.Client

	mu   sync.Mutex
	done map[appliedKey]applied
}

type appliedKey struct{ kind, namespace, name string }

type applied struct {
	sum     [sha256.Size]byte
	version string // the resourceVersion that came of it
}

// apply makes an object what o says, as a part of cluster c; owned is false for what
// cannot have an owner.
func (a *applier) apply(ctx context.Context, c *v1alpha1.Cluster, o client.Object, owned bool) error {
	if owned {
		yes := true
		o.SetOwnerReferences([]metav1.OwnerReference{{
			APIVersion: c.GroupVersionKind().GroupVersion().String(), Kind: v1alpha1.KindCluster, Name: c.Name, UID: c.UID,
			Controller: &yes, BlockOwnerDeletion: &yes,
		}})
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return fmt.Errorf("apply %s: %w", o.GetName(), err)
	}
	delete(fields, "status")
	stripEmpty(fields)
	u := &unstructured.Unstructured{Object: fields}
	text, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("apply %s: %w", o.GetName(), err)
	}
	key := appliedKey{u.GetKind(), u.GetNamespace(), u.GetName()}
	want := applied{sum: sha256.Sum256(text)}
	have, ok := a.remembered(key)
	if ok && have.sum == want.sum {
		now := &metav1.PartialObjectMetadata{}
		now.SetGroupVersionKind(u.GroupVersionKind())
		if err := a.client.Get(ctx, client.ObjectKeyFromObject(u), now); err == nil && now.ResourceVersion == have.version {
			return nil
		}
	}
	if err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), fieldOwner, client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	want.version = u.GetResourceVersion()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done == nil {
		a.done = map[appliedKey]applied{}
	}
	a.done[key] = want
	return nil
}

// applyAlone makes an object what o says, whatever was applied before.
func applyAlone(ctx context.Context, c client.Client, o client.Object) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return fmt.Errorf("apply %s: %w", o.GetName(), err)
	}
	delete(fields, "status")
	stripEmpty(fields)
	u := &unstructured.Unstructured{Object: fields}
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), fieldOwner, client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return nil
}

func (a *applier) remembered(key appliedKey) (applied, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	have, ok := a.done[key]
	return have, ok
}

// forget drops what is remembered of a cluster that is gone: one of the same name is
// another.
func (a *applier) forget(c *v1alpha1.Cluster) {
	binding, prefix := specs.AgentBinding(c.Namespace, c.Name), specs.StatefulSetName(c.Name)
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.done, func(key appliedKey, _ applied) bool {
		// that of a neighbour whose name begins alike is only applied once more
		return key.name == binding || key.namespace == c.Namespace && strings.HasPrefix(key.name, prefix)
	})
}

// stripEmpty takes away the nulls that Go's types print for times that are not set, and
// the empty status of a volumeClaimTemplate: whoever applies a field owns it.
func stripEmpty(v any) {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			if m, ok := e.(map[string]any); e == nil || k == "status" && ok && len(m) == 0 {
				delete(x, k)
				continue
			}
			stripEmpty(e)
		}
	case []any:
		for _, e := range x {
			stripEmpty(e)
		}
	}
}
