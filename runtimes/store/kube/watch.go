// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/receiver"
)

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, kind, namespace string) (<-chan store.Event, error) {
	k, err := kindOf(kind)
	if err != nil {
		return nil, err
	}
	if !k.Namespaced {
		namespace = ""
	}
	if namespace != "" && !isPart(namespace) {
		return nil, fmt.Errorf("watch %s: %q is not a namespace", k.Plural, namespace)
	}
	texts, version, err := s.list(ctx, k, namespace, nil)
	if err != nil {
		return nil, err
	}
	w := newWatch(k)
	w.replace(texts)
	w.receiver.Begin()
	src := &source{s: s, kind: k, namespace: namespace, version: version, changes: make(chan change)}
	go w.run(ctx, src)
	return w.out, nil
}

// watch passes on to a receiver what a source says.
type watch struct {
	kind     v1alpha1.Kind
	out      chan store.Event
	receiver *receiver.Receiver
}

func newWatch(k v1alpha1.Kind) *watch {
	read := func(_ store.Key, text []byte) (v1alpha1.Object, error) { return parse(k, text) }
	return &watch{kind: k, out: make(chan store.Event), receiver: receiver.New(k, read)}
}

func (w *watch) run(ctx context.Context, src *source) {
	defer close(w.out)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		src.run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	for {
		event, sent := w.receiver.Next()
		out := w.out
		if event == nil {
			out, event = nil, new(store.Event)
		}
		select {
		case <-ctx.Done():
			return
		case out <- *event:
			sent()
		case c := <-src.changes:
			if c.all {
				w.replace(c.texts)
			} else {
				w.note(c.texts[0], c.gone)
			}
		}
	}
}

// replace says that texts are all that there is.
func (w *watch) replace(texts []json.RawMessage) {
	there := make(map[store.Key]bool, len(texts))
	for _, text := range texts {
		there[w.note(text, false)] = true
	}
	for _, key := range slices.Collect(w.receiver.Keys()) {
		if !there[key] {
			w.receiver.Note(key, receiver.State{Gone: true})
		}
	}
}

// note says how an object is, or was when it went.
func (w *watch) note(text []byte, gone bool) store.Key {
	h := head(w.kind, text)
	w.receiver.Note(h.key, receiver.State{Gone: gone, Mark: h.version, UID: h.uid, Text: text})
	return h.key
}
