// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
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
	for key := range w.news {
		w.first[key] = true
	}
	src := &source{s: s, kind: k, namespace: namespace, version: version, changes: make(chan change)}
	go w.run(ctx, src)
	return w.out, nil
}

// watch is what one receiver knows, and what it is still to be told. Events are not
// queued but derived from the difference of the two when the receiver is ready: its
// slowness costs memory for objects, not for changes, and the last state is never lost.
type watch struct {
	kind v1alpha1.Kind
	out  chan store.Event

	told  map[store.Key]told
	news  map[store.Key]news
	order []store.Key        // of the news; keys without news are passed over
	first map[store.Key]bool // what was there at the beginning and was not told yet
	begun bool               // Synced was sent
}

// told is the last that the receiver heard of an object.
type told struct {
	text    []byte // of the last whole state; nil when none was told
	uid     string // of that state
	version string // of what was told last, whole or broken
}

// news is a state that the receiver has not heard of.
type news struct {
	gone bool
	text []byte
	heading
}

func newWatch(k v1alpha1.Kind) *watch {
	return &watch{
		kind: k, out: make(chan store.Event),
		told: make(map[store.Key]told), news: make(map[store.Key]news), first: make(map[store.Key]bool),
	}
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
		event, sent := w.next()
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
				w.note(news{gone: c.gone, text: c.texts[0], heading: head(w.kind, c.texts[0])})
			}
		}
	}
}

// replace says that texts are all that there is.
func (w *watch) replace(texts []json.RawMessage) {
	there := make(map[store.Key]bool, len(texts))
	for _, text := range texts {
		n := news{text: text, heading: head(w.kind, text)}
		there[n.key] = true
		w.note(n)
	}
	for key, t := range w.told {
		if !there[key] {
			w.note(news{gone: true, heading: heading{key: key, uid: t.uid}})
		}
	}
	for key, n := range w.news {
		if !there[key] {
			w.note(news{gone: true, heading: n.heading})
		}
	}
}

func (w *watch) note(n news) {
	was, known := w.told[n.key]
	if n.gone && !known || !n.gone && known && was.version == n.version {
		// The receiver never heard of what is gone, or it heard of this very state.
		delete(w.news, n.key)
		delete(w.first, n.key)
		return
	}
	if _, waits := w.news[n.key]; !waits {
		w.order = append(w.order, n.key)
	}
	w.news[n.key] = n
}

// next is the event to send now and what to do once it is sent; nil if there is none.
func (w *watch) next() (*store.Event, func()) {
	if !w.begun && len(w.first) == 0 {
		return &store.Event{Type: store.Synced}, func() { w.begun = true }
	}
	for len(w.order) > 0 {
		key := w.order[0]
		n, ok := w.news[key]
		if !ok {
			w.order = w.order[1:]
			continue
		}
		was := w.told[key]
		done := func() {
			delete(w.news, key)
			delete(w.first, key)
			w.order = w.order[1:]
		}
		if was.text != nil && (n.gone || n.uid != was.uid) {
			return w.deletion(key, was, func() {
				delete(w.told, key)
				if n.gone {
					done()
				}
			})
		}
		if n.gone { // the receiver only knew that it was broken
			delete(w.told, key)
			done()
			continue
		}
		o, err := parse(w.kind, n.text)
		if err != nil {
			return &store.Event{Type: store.Broken, Key: key, Err: err}, func() {
				was.version = n.version
				w.told[key] = was
				done()
			}
		}
		t := store.Modified
		if was.text == nil {
			t = store.Added
		}
		return &store.Event{Type: t, Key: key, Object: o}, func() {
			w.told[key] = told{text: n.text, uid: n.uid, version: n.version}
			done()
		}
	}
	return nil, nil
}

func (w *watch) deletion(key store.Key, was told, sent func()) (*store.Event, func()) {
	o, err := parse(w.kind, was.text)
	if err != nil {
		// It was parsed before it was told, so this cannot be; the receiver must hear all the same.
		panic(errors.Join(errors.New("kube: what was read once cannot be read again"), err))
	}
	return &store.Event{Type: store.Deleted, Key: key, Object: o}, sent
}
