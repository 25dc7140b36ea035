// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Store is the objects of one Kubernetes cluster.
type Store struct {
	groups map[string]rest.Interface
	log    *slog.Logger
}

var _ store.Store = (*Store)(nil)

// page is how many objects one answer to List holds at most.
const page = 500

// New makes a store of the API server that config names. Nothing is asked of it yet.
// Interruptions of watches are logged to log.
func New(config *rest.Config, log *slog.Logger) (*Store, error) {
	// The scheme is for errors alone: objects are read and written by v1alpha1.
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	s := &Store{groups: make(map[string]rest.Interface), log: log}
	for _, k := range v1alpha1.Kinds() {
		if s.groups[k.Group] != nil {
			continue
		}
		gv := k.GroupVersionKind().GroupVersion()
		c := rest.CopyConfig(config)
		c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &gv, "/apis", codecs
		c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
		c.WarningHandler = rest.NoWarnings{}
		c.QPS = -1 // the server has its own measure of fairness
		client, err := rest.RESTClientFor(c)
		if err != nil {
			return nil, fmt.Errorf("open the Kubernetes API: %w", err)
		}
		s.groups[k.Group] = client
	}
	return s, nil
}

func kindOf(kind string) (v1alpha1.Kind, error) {
	for _, k := range v1alpha1.Kinds() {
		if k.Name == kind {
			return k, nil
		}
	}
	return v1alpha1.Kind{}, store.Unknown(kind)
}

// named begins a request for one object. It is NotFound for a name that no object can
// have, which would lead to another path.
func (s *Store) named(r *rest.Request, k v1alpha1.Kind, namespace, name string) (*rest.Request, error) {
	if !isPart(name) || (k.Namespaced && !isPart(namespace)) {
		return nil, store.NotFound(k, name)
	}
	return r.NamespaceIfScoped(namespace, k.Namespaced).Resource(k.Plural).Name(name), nil
}

func isPart(s string) bool { return s != "" && len(rest.IsValidPathSegmentName(s)) == 0 }

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, kind, namespace, name string) (v1alpha1.Object, error) {
	k, err := kindOf(kind)
	if err != nil {
		return nil, err
	}
	r, err := s.named(s.groups[k.Group].Get(), k, namespace, name)
	if err != nil {
		return nil, err
	}
	text, err := answer(ctx, k, r)
	if err != nil {
		return nil, err
	}
	return parse(k, text)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind, namespace string, selector map[string]string) ([]v1alpha1.Object, error) {
	k, err := kindOf(kind)
	if err != nil {
		return nil, err
	}
	if k.Namespaced && namespace != "" && !isPart(namespace) {
		return nil, nil
	}
	texts, _, err := s.list(ctx, k, namespace, selector)
	if err != nil {
		return nil, err
	}
	var objects []v1alpha1.Object
	var broken store.BrokenObjects
	for _, text := range texts {
		o, err := parse(k, text)
		var b *store.BrokenObject
		switch {
		case errors.As(err, &b):
			broken = append(broken, b)
		case err != nil:
			return nil, err
		default:
			objects = append(objects, o)
		}
	}
	slices.SortFunc(objects, func(a, b v1alpha1.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	if len(broken) > 0 {
		return objects, broken
	}
	return objects, nil
}

// list is the texts of the objects and the resourceVersion that they are as of.
func (s *Store) list(ctx context.Context, k v1alpha1.Kind, namespace string, selector map[string]string) ([]json.RawMessage, string, error) {
	var texts []json.RawMessage
	for from := ""; ; {
		r := s.groups[k.Group].Get().NamespaceIfScoped(namespace, k.Namespaced && namespace != "").Resource(k.Plural).
			Param("limit", fmt.Sprint(page))
		if len(selector) > 0 {
			r.Param("labelSelector", labels.SelectorFromSet(selector).String())
		}
		if from != "" {
			r.Param("continue", from)
		}
		text, err := answer(ctx, k, r)
		if err != nil {
			return nil, "", err
		}
		var l struct {
			Metadata metav1.ListMeta   `json:"metadata"`
			Items    []json.RawMessage `json:"items"`
		}
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, "", fmt.Errorf("list %s: %w", k.Resource(), err)
		}
		texts = append(texts, l.Items...)
		if from = l.Metadata.Continue; from == "" {
			return texts, l.Metadata.ResourceVersion, nil
		}
	}
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, o v1alpha1.Object) error {
	k := v1alpha1.KindOf(o)
	if o.GetResourceVersion() != "" {
		return store.Invalid(k, o.GetName(), v1alpha1.FieldErrors{{Type: v1alpha1.ErrorForbidden, Path: "metadata.resourceVersion", Reason: "must not be given for a new object"}})
	}
	fresh := clone(o)
	if err := store.Admit(fresh, nil); err != nil {
		return err
	}
	v1alpha1.AssignStatus(fresh, k.New())
	fresh.SetUID("")
	fresh.SetCreationTimestamp(metav1.Time{})
	fresh.SetDeletionTimestamp(nil)
	return s.put(ctx, s.groups[k.Group].Post().NamespaceIfScoped(fresh.GetNamespace(), k.Namespaced).Resource(k.Plural), o, fresh)
}

// Update implements store.Store. It reads what is stored, so that what is wrong with
// a change is said in the words that all stores have for it.
func (s *Store) Update(ctx context.Context, o v1alpha1.Object) error {
	return s.change(ctx, o, "", func(cur, next v1alpha1.Object) error {
		if err := store.Admit(next, cur); err != nil {
			return err
		}
		v1alpha1.AssignStatus(next, cur)
		next.SetUID(cur.GetUID())
		next.SetGeneration(cur.GetGeneration())
		next.SetCreationTimestamp(cur.GetCreationTimestamp())
		next.SetDeletionTimestamp(cur.GetDeletionTimestamp())
		next.SetDeletionGracePeriodSeconds(cur.GetDeletionGracePeriodSeconds())
		return nil
	})
}

// UpdateStatus implements store.Store.
func (s *Store) UpdateStatus(ctx context.Context, o v1alpha1.Object) error {
	return s.change(ctx, o, "status", nil)
}

// change replaces what is stored by what edit makes of a copy of o; nil leaves the
// copy as it is. Then o is what is stored.
func (s *Store) change(ctx context.Context, o v1alpha1.Object, subresource string, edit func(cur, next v1alpha1.Object) error) error {
	k := v1alpha1.KindOf(o)
	if o.GetResourceVersion() == "" {
		return store.Invalid(k, o.GetName(), v1alpha1.FieldErrors{{Type: v1alpha1.ErrorRequired, Path: "metadata.resourceVersion", Reason: "must be given for an update"}})
	}
	r, err := s.named(s.groups[k.Group].Put(), k, o.GetNamespace(), o.GetName())
	if err != nil {
		return err
	}
	if subresource != "" {
		r.SubResource(subresource)
	}
	next := clone(o)
	if edit != nil {
		cur, err := s.Get(ctx, k.Name, o.GetNamespace(), o.GetName())
		if err != nil {
			return err
		}
		switch {
		case o.GetUID() != "" && o.GetUID() != cur.GetUID():
			return store.Conflict(k, o.GetName(), fmt.Sprintf("the object was deleted and made anew: its UID is %s, not %s", cur.GetUID(), o.GetUID()))
		case o.GetResourceVersion() != cur.GetResourceVersion():
			return store.Stale(k, o.GetName())
		}
		if err := edit(cur, next); err != nil {
			return err
		}
	}
	return s.put(ctx, r, o, next)
}

// put sends next and makes o what the server answers.
func (s *Store) put(ctx context.Context, r *rest.Request, o, next v1alpha1.Object) error {
	k := v1alpha1.KindOf(next)
	next.SetGroupVersionKind(next.GroupVersionKind())
	body, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", k.Name, next.GetName(), err)
	}
	text, err := answer(ctx, k, r.Body(body).SetHeader("Content-Type", runtime.ContentTypeJSON))
	if err != nil {
		return err
	}
	stored, err := parse(k, text)
	if err != nil {
		return err
	}
	v1alpha1.Assign(o, stored)
	return nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, kind, namespace, name string, pre store.Preconditions) error {
	k, err := kindOf(kind)
	if err != nil {
		return err
	}
	r, err := s.named(s.groups[k.Group].Delete(), k, namespace, name)
	if err != nil {
		return err
	}
	options := metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}}
	if pre != (store.Preconditions{}) {
		options.Preconditions = new(metav1.Preconditions)
		if uid := types.UID(pre.UID); uid != "" {
			options.Preconditions.UID = &uid
		}
		if pre.ResourceVersion != "" {
			options.Preconditions.ResourceVersion = &pre.ResourceVersion
		}
	}
	body, err := json.Marshal(options)
	if err != nil {
		return err
	}
	_, err = answer(ctx, k, r.Body(body).SetHeader("Content-Type", runtime.ContentTypeJSON))
	return err
}

// clone copies o, so that nothing is shared.
func clone(o v1alpha1.Object) v1alpha1.Object { return o.DeepCopyObject().(v1alpha1.Object) }
