// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Events are Kubernetes' own about our objects and about what the operator made of them.
// The API server keeps them for an hour, unless it was told otherwise.
func (r *Runtime) Events(ctx context.Context, namespace, cluster string) ([]runtimes.Event, error) {
	owners, err := r.owners(ctx, namespace, cluster)
	if err != nil {
		return nil, err
	}
	var out []runtimes.Event
	for from := ""; ; {
		query := map[string]string{"limit": strconv.Itoa(500)}
		if from != "" {
			query["continue"] = from
		}
		var l corev1.EventList
		if err := r.api.get(ctx, &l, of(namespace, "events", ""), query); err != nil {
			return nil, fmt.Errorf("list events: %w", err)
		}
		for i := range l.Items {
			e := &l.Items[i]
			owner, ours := owners.of(e)
			if ours && (cluster == "" || owner == cluster) {
				out = append(out, eventOf(e, owner))
			}
		}
		if from = l.Continue; from == "" {
			break
		}
	}
	slices.SortStableFunc(out, func(a, b runtimes.Event) int {
		return cmp.Or(a.Last.Compare(b.Last), a.First.Compare(b.First))
	})
	return out, nil
}

func eventOf(e *corev1.Event, owner string) runtimes.Event {
	out := runtimes.Event{
		Namespace: e.InvolvedObject.Namespace, Cluster: owner, Object: e.InvolvedObject.Kind + "/" + e.InvolvedObject.Name,
		Type: runtimes.EventType(e.Type), Reason: e.Reason, Message: e.Message,
		Count: int(max(e.Count, 1)), First: e.FirstTimestamp.UTC(), Last: e.LastTimestamp.UTC(),
	}
	// Newer writers fill eventTime and series instead.
	if e.Series != nil {
		out.Count, out.Last = int(max(e.Series.Count, 1)), e.Series.LastObservedTime.UTC()
	}
	for _, t := range []*time.Time{&out.First, &out.Last} {
		switch {
		case !t.IsZero():
		case !e.EventTime.IsZero():
			*t = e.EventTime.UTC()
		default:
			*t = e.CreationTimestamp.UTC()
		}
	}
	return out
}

// owners tells to which cluster an object belongs.
type owners struct {
	clusters map[string][]string  // by namespace; one that is gone is among them if it was asked for
	objects  map[store.Key]string // backups and policies
}

func (r *Runtime) owners(ctx context.Context, namespace, cluster string) (owners, error) {
	o := owners{clusters: make(map[string][]string), objects: make(map[store.Key]string)}
	clusters, err := store.List[*v1alpha1.Cluster](ctx, r.objects, namespace, nil)
	if err := readable(err); err != nil {
		return o, err
	}
	for _, c := range clusters {
		o.clusters[c.Namespace] = append(o.clusters[c.Namespace], c.Name)
	}
	if cluster != "" && !slices.Contains(o.clusters[namespace], cluster) {
		o.clusters[namespace] = append(o.clusters[namespace], cluster)
	}
	backups, err := store.List[*v1alpha1.Backup](ctx, r.objects, namespace, nil)
	if err := readable(err); err != nil {
		return o, err
	}
	for _, b := range backups {
		o.objects[store.KeyOf(b)] = b.Spec.ClusterRef
	}
	policies, err := store.List[*v1alpha1.BackupPolicy](ctx, r.objects, namespace, nil)
	if err := readable(err); err != nil {
		return o, err
	}
	for _, p := range policies {
		o.objects[store.KeyOf(p)] = p.Spec.ClusterRef
	}
	return o, nil
}

// readable passes over objects that cannot be read: the others have events too.
func readable(err error) error {
	if _, broken := err.(store.BrokenObjects); broken {
		return nil
	}
	return err
}

// of is the cluster of an event, empty for what belongs to none, and whether it is about
// a thing of ours at all.
func (o owners) of(e *corev1.Event) (cluster string, ours bool) {
	about := e.InvolvedObject
	if k, ok := v1alpha1.LookupKind(about.Kind); ok && about.GroupVersionKind().Group == k.Group {
		if k.Name == v1alpha1.KindCluster {
			return about.Name, true
		}
		return o.objects[store.Key{Kind: k.Name, Namespace: about.Namespace, Name: about.Name}], true
	}
	// The longest name is the owner: my-pg-postgresql has things that begin as those of my-pg do.
	for _, c := range o.clusters[about.Namespace] {
		if len(c) > len(cluster) && names.Belongs(about.Name, c) {
			cluster = c
		}
	}
	return cluster, cluster != ""
}
