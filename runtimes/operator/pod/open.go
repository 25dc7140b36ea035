// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/operator"
	"github.com/kbcli/kbcli/runtimes/operator/volumesnapshots"
	"github.com/kbcli/kbcli/runtimes/repos"
)

// Open fills in Objects and Event: those of the Kubernetes that the pod is in. The
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
	return o, broadcaster.Shutdown, nil
}

// Answers is what can be asked of a pod that reaches the repositories.
type Answers struct {
	Repositories *repos.Set
	Now          func() time.Time
}

// Plan says what a restore would do.
func (a Answers) Plan(ctx context.Context, src runtimes.Source, t catalog.Target) (*restore.Plan, error) {
	return a.Repositories.Plan(ctx, src, t, nil, repos.OnItsWay(t, a.Now()))
}

// Windows lists what can be reached.
func (a Answers) Windows(ctx context.Context, src runtimes.Source) ([]catalog.Window, error) {
	return a.Repositories.Windows(ctx, src)
}

// Clock is that of this pod's node.
func (a Answers) Clock(context.Context, runtimes.Source) (time.Time, error) {
	return a.Now().UTC(), nil
}
