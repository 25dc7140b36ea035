// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// bringSettings gives Patroni the settings that the cluster asks for, once there is a
// cluster: before that the file it starts with has them. Patroni applies them at once,
// and marks the pods that have to be started anew for it.
func (l *clusterLoop) bringSettings(ctx context.Context, s *seen) error {
	if !s.initialized() || s.config["config"] == "" {
		return nil
	}
	want, err := specs.Dynamic(s.cluster, agent.SlotName(s.cluster.Namespace, s.cluster.Name))
	if err != nil {
		return err
	}
	if sameJSON(want, s.config["config"]) {
		return nil
	}
	return l.annotate(ctx, s.cluster.Namespace, specs.ConfigEndpoints(s.cluster.Name), map[string]any{"config": want})
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// annotate changes annotations of Endpoints, and nothing else of them.
func (l *clusterLoop) annotate(ctx context.Context, namespace, name string, notes map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": notes}})
	if err != nil {
		return err
	}
	o := endpointsMeta()
	o.Namespace, o.Name = namespace, name
	if err := l.client.Patch(ctx, o, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("write Endpoints %s: %w", name, err)
	}
	return nil
}

// takeStep does what nextStep says.
func (l *clusterLoop) takeStep(ctx context.Context, s *seen) error {
	next := s.nextStep()
	switch {
	case next.end != "":
		p := s.pod(next.end)
		l.event(s.cluster, runtimes.EventNormal, "PodEnded", next.end+": "+next.why)
		pre := client.Preconditions{UID: &p.UID}
		if err := l.client.Delete(ctx, p, pre); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("end pod %s: %w", p.Name, err)
		}
	case next.switchover != "":
		return l.switchOver(ctx, s, next)
	}
	return nil
}

func (s *seen) pod(name string) *core.Pod {
	for i := range s.pods {
		if s.pods[i].Name == name {
			return &s.pods[i]
		}
	}
	return nil
}

// switchOver asks Patroni to make another server the primary, as patronictl does. A
// request that stands is not repeated: Patroni takes it away when it has acted upon it.
func (l *clusterLoop) switchOver(ctx context.Context, s *seen, next step) error {
	c, from := s.cluster, s.leader["leader"]
	name := specs.FailoverEndpoints(c.Name)
	now := endpointsMeta()
	err := l.live.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: name}, now)
	switch {
	case apierrors.IsNotFound(err):
		//nolint:staticcheck // Patroni's place is Endpoints
		o := &core.Endpoints{ObjectMeta: metav1.ObjectMeta{
			Namespace: c.Namespace, Name: name, Labels: specs.Selector(c.Name),
			Annotations: map[string]string{"leader": from, "member": next.switchover},
		}}
		err = l.client.Create(ctx, o)
	case err != nil:
	case now.Annotations["leader"] == from && now.Annotations["member"] == next.switchover:
		return nil
	default:
		err = l.annotate(ctx, c.Namespace, name, map[string]any{"leader": from, "member": next.switchover, "scheduled_at": nil})
	}
	if err != nil {
		return fmt.Errorf("switch over to %s: %w", next.switchover, err)
	}
	l.event(c, runtimes.EventNormal, "Switchover", next.switchover+" is asked to be the primary: "+next.why)
	return nil
}
