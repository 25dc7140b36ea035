// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"encoding/json"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/operator"
	"github.com/kbcli/kbcli/runtimes/operator/volumesnapshots"
)

// Open fills in Objects, Volumes, Event and Note: those of the Kubernetes that the pod is in. The
// function it returns is called when nothing more happens.
func (o Options) Open(ctx context.Context) (Options, func(), error) {
	config, objects, err := operator.InCluster(o.Log)
	if err != nil {
		return o, nil, err
	}
	client, err := clientset.NewForConfig(config)
	if err != nil {
		return o, nil, err
	}
	scheme := kruntime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return o, nil, err
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return o, nil, err
	}
	recorder := broadcaster.NewRecorder(scheme, "kubeblocks-agent")
	o.Objects = objects
	if o.Volumes, err = volumesnapshots.New(config); err != nil {
		return o, nil, err
	}
	o.Event = func(object string, t runtimes.EventType, reason, message string) {
		kind, name, _ := strings.Cut(object, "/")
		k, ok := v1alpha1.LookupKind(kind)
		if !ok {
			return
		}
		about := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}}
		about.SetGroupVersionKind(k.GroupVersionKind())
		if k.Namespaced {
			about.Namespace = o.Namespace
		}
		recorder.Eventf(about, nil, string(t), reason, "Protect", "%s", operator.Shorten(message))
	}
	o.Note = func(ctx context.Context, key, value string) error {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{key: value}}})
		if err != nil {
			return err
		}
		_, err = client.CoreV1().Pods(o.Namespace).Patch(ctx, o.Pod, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	}
	return o, broadcaster.Shutdown, nil
}
