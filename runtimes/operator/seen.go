// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// seen is one cluster as it was found. What is judged is judged from it alone.
type seen struct {
	cluster *v1alpha1.Cluster
	set     *apps.StatefulSet // nil: none
	pods    []core.Pod        // by ordinal
	claims  []core.PersistentVolumeClaim

	config map[string]string // annotations of Patroni's configuration; nil: Patroni has not begun
	leader map[string]string // of its lock
}

// member is what Patroni writes on its pod.
type member struct {
	State          string `json:"state"`
	Role           string `json:"role"`
	Position       int64  `json:"xlog_location"`
	Timeline       int64  `json:"timeline"`
	PendingRestart bool   `json:"pending_restart"`
}

// memberOf reads it; it is empty until Patroni has begun.
func memberOf(p *core.Pod) member {
	var m member
	if json.Unmarshal([]byte(p.Annotations["status"]), &m) != nil {
		return member{}
	}
	return m
}

func endpointsMeta() *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(core.SchemeGroupVersion.WithKind("Endpoints"))
	return m
}

// look finds a cluster's parts.
func (l *clusterLoop) look(ctx context.Context, c *v1alpha1.Cluster) (*seen, error) {
	s := &seen{cluster: c}
	key := client.ObjectKey{Namespace: c.Namespace, Name: specs.StatefulSetName(c.Name)}
	set := &apps.StatefulSet{}
	switch err := l.client.Get(ctx, key, set); {
	case err == nil:
		s.set = set
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("read StatefulSet %s: %w", key.Name, err)
	}
	own := []client.ListOption{client.InNamespace(c.Namespace), client.MatchingLabels(specs.Selector(c.Name))}
	var pods core.PodList
	var claims core.PersistentVolumeClaimList
	if err := errors.Join(l.client.List(ctx, &pods, own...), l.client.List(ctx, &claims, own...)); err != nil {
		return nil, fmt.Errorf("list pods and volumes: %w", err)
	}
	s.pods = slices.DeleteFunc(pods.Items, func(p core.Pod) bool { return specs.Ordinal(c.Name, p.Name) < 0 })
	slices.SortFunc(s.pods, func(a, b core.Pod) int {
		return cmp.Compare(specs.Ordinal(c.Name, a.Name), specs.Ordinal(c.Name, b.Name))
	})
	s.claims = claims.Items
	for name, into := range map[string]*map[string]string{specs.ConfigEndpoints(c.Name): &s.config, specs.PrimaryService(c.Name): &s.leader} {
		m := endpointsMeta()
		switch err := l.client.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: name}, m); {
		case err == nil:
			if *into = m.Annotations; *into == nil {
				*into = map[string]string{}
			}
		case !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("read Endpoints %s: %w", name, err)
		}
	}
	return s, nil
}

// initialized tells that Patroni knows the cluster's system identifier: there is data.
func (s *seen) initialized() bool { return s.config["initialize"] != "" }

// primary is the pod that holds the lock; nil if none does that is there.
func (s *seen) primary() *core.Pod {
	name := s.leader["leader"]
	for i := range s.pods {
		if name != "" && s.pods[i].Name == name && s.pods[i].DeletionTimestamp == nil {
			return &s.pods[i]
		}
	}
	return nil
}

// heldUp tells that the holder of the lock has not left recovery for so long, as where a
// promotion failed for want of room: Patroni believes that it writes. Its own clock is asked
// alone, which wrote all of the moments; it renews the lock every ten seconds.
func (s *seen) heldUp(patience time.Duration) bool {
	p := s.primary()
	if p == nil {
		return false
	}
	var times [3]time.Time
	for i, text := range []string{p.Annotations[names.AnnotationRecovers], s.leader["acquireTime"], s.leader["renewTime"]} {
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return false
		}
		times[i] = t
	}
	recovers, holds, now := times[0], times[1], times[2]
	return now.Sub(recovers) > patience && now.Sub(holds) > patience
}

func ready(p *core.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c core.PodCondition) bool {
		return c.Type == core.PodReady && c.Status == core.ConditionTrue
	})
}

func (s *seen) ready() (n int32) {
	for i := range s.pods {
		if ready(&s.pods[i]) {
			n++
		}
	}
	return n
}

// restoring tells that the cluster's data is still being made from another's past.
func (s *seen) restoring() bool {
	r := s.cluster.Status.Restore
	return s.cluster.Spec.Restore != nil && (r == nil || r.Phase != v1alpha1.RestoreCompleted)
}

// restoreFailed tells that it will not be.
func (s *seen) restoreFailed() bool {
	r := s.cluster.Status.Restore
	return s.cluster.Spec.Restore != nil && r != nil && r.Phase == v1alpha1.RestoreFailed
}

// size is how many pods there should be now. A restored cluster has one until that has
// become a cluster of its own: others would find no data, and no server to copy.
func (s *seen) size() int32 {
	c := s.cluster
	switch {
	case c.Spec.Stopped, s.restoreFailed():
		return 0
	case c.Spec.Restore != nil && (s.restoring() || !s.initialized()):
		return 1
	}
	if p := s.primary(); p != nil && s.set != nil && s.set.Spec.Replicas != nil && specs.Ordinal(c.Name, p.Name) >= int(c.Spec.Replicas) {
		// the primary is among those that are to go: it hands over first
		return max(*s.set.Spec.Replicas, c.Spec.Replicas)
	}
	return c.Spec.Replicas
}

// unsettled tells that Kubernetes has not looked at the StatefulSet since it changed:
// which pods are of its present template is not known.
func (s *seen) unsettled() bool {
	return s.set == nil || s.set.Status.ObservedGeneration != s.set.Generation || s.set.Status.UpdateRevision == ""
}

// stale tells that a pod has to be made anew.
func (s *seen) stale(p *core.Pod) bool {
	if s.unsettled() {
		return false
	}
	return p.Labels[apps.ControllerRevisionHashLabelKey] != s.set.Status.UpdateRevision || memberOf(p).PendingRestart
}

// rolling tells that some pod has yet to be made anew.
func (s *seen) rolling() bool {
	return slices.ContainsFunc(s.pods, func(p core.Pod) bool { return s.stale(&p) })
}
