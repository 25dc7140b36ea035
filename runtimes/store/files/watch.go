// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/fsnotify/fsnotify"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

const (
	// rescanEvery bounds how long a change goes unseen that the kernel did not tell.
	rescanEvery = 5 * time.Second
	// rescanAlone is the same when the kernel tells nothing at all.
	rescanAlone = 500 * time.Millisecond
	// settle is how long a file must have been gone or broken to be called so:
	// some editors move the old file away before they write the new one, others
	// write in place.
	settle = 200 * time.Millisecond
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
	w := &watch{
		s: s, kind: k, namespace: namespace, every: rescanEvery, out: make(chan store.Event),
		told: make(map[store.Key]told), news: make(map[store.Key]*news), doubt: make(map[store.Key]int), first: make(map[store.Key]bool),
	}
	// Before the first look, so that no change falls in between.
	if w.notify, err = s.notify(); err != nil {
		w.notify, w.every = &fsnotify.Watcher{}, rescanAlone
	}
	w.listen()
	places, err := s.places(k, namespace)
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	for _, p := range places {
		w.refresh(p)
	}
	w.settleAll()
	for key := range w.news {
		w.first[key] = true
	}
	go w.run(ctx)
	return w.out, nil
}

// watch is what one receiver knows, and what it is still to be told. Events are
// not queued but derived from the difference of the two when the receiver is
// ready: so its slowness costs memory for states, not for changes, and the last
// state is never lost.
type watch struct {
	s         *Store
	kind      v1alpha1.Kind
	namespace string
	notify    *fsnotify.Watcher
	every     time.Duration
	out       chan store.Event

	told  map[store.Key]told
	news  map[store.Key]*news
	order []store.Key        // of the news; keys without news are passed over
	doubt map[store.Key]int  // gone or broken, and how often it was looked at again
	first map[store.Key]bool // what was there at the beginning and was not told yet
	begun bool               // Synced was sent
}

// told is the last that the receiver heard of an object.
type told struct {
	text []byte    // of the last whole state; nil when none was told
	uid  types.UID // of that state
	hash uint64    // of the file as it was told, whole or broken
}

// news is a state that the receiver has not heard of.
type news struct {
	gone   bool
	object v1alpha1.Object
	err    error
	text   []byte
	hash   uint64
}

func (w *watch) run(ctx context.Context) {
	defer close(w.out)
	defer w.close()
	rescan := time.NewTicker(w.every)
	defer rescan.Stop()
	look := time.NewTicker(settle)
	look.Stop()
	defer look.Stop()
	looking := false
	for {
		if looking != (len(w.doubt) > 0) {
			if looking = !looking; looking {
				look.Reset(settle)
			} else {
				look.Stop()
			}
		}
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
		case e := <-w.notify.Events:
			w.notice(e.Name)
		case <-w.notify.Errors: // its queue ran over, so something was missed
			w.rescan()
		case <-rescan.C:
			w.rescan()
		case <-look.C:
			w.lookAgain()
		}
	}
}

func (w *watch) close() error {
	if w.notify.Events == nil {
		return nil
	}
	return w.notify.Close()
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
		if n.err != nil {
			return &store.Event{Type: store.Broken, Key: key, Err: n.err}, func() {
				was.hash = n.hash
				w.told[key] = was
				done()
			}
		}
		if was.text != nil && (n.gone || n.object.GetUID() != was.uid) {
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
		t := store.Modified
		if was.text == nil {
			t = store.Added
		}
		return &store.Event{Type: t, Key: key, Object: n.object}, func() {
			w.told[key] = told{text: n.text, uid: n.object.GetUID(), hash: n.hash}
			done()
		}
	}
	return nil, nil
}

func (w *watch) deletion(key store.Key, was told, sent func()) (*store.Event, func()) {
	r, err := w.s.placeIn(w.kind, key.Namespace, key.Name).parse(was.text)
	if err != nil {
		// It was parsed before it was told, so this cannot be; the receiver must hear all the same.
		r.object = w.kind.New()
		r.object.SetNamespace(key.Namespace)
		r.object.SetName(key.Name)
		r.object.SetUID(was.uid)
	}
	return &store.Event{Type: store.Deleted, Key: key, Object: r.object}, sent
}

// refresh looks at one file. Bad news waits in doubt first.
func (w *watch) refresh(p place) {
	n := &news{}
	var err error
	n.text, err = os.ReadFile(p.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		n.gone = true
	case err != nil:
		n.err = &store.BrokenObject{Key: p.key, Place: p.path, Err: errors.Unwrap(err)}
		n.hash = xxhash.Sum64String(err.Error())
	default:
		n.hash = xxhash.Sum64(n.text)
	}
	if w.knows(p.key, n) {
		delete(w.doubt, p.key)
		return
	}
	if err == nil {
		r, err := p.parse(n.text)
		n.object, n.err = r.object, err
	}
	if looks := w.doubt[p.key]; looks < 2 && (n.gone || n.err != nil) {
		w.doubt[p.key] = looks // lookAgain counts
		return
	}
	delete(w.doubt, p.key)
	if was, ok := w.told[p.key]; ok && !n.gone && was.hash == n.hash {
		delete(w.news, p.key) // back to what the receiver knows
		return
	}
	if _, ok := w.news[p.key]; !ok {
		w.order = append(w.order, p.key)
	}
	w.news[p.key] = n
}

// knows tells whether n is what the receiver knows or is about to hear.
func (w *watch) knows(key store.Key, n *news) bool {
	if next, ok := w.news[key]; ok {
		return next.gone == n.gone && next.hash == n.hash
	}
	was, ok := w.told[key]
	return ok != n.gone && (n.gone || was.hash == n.hash)
}

// lookAgain looks at what was in doubt: at the second time it is believed.
func (w *watch) lookAgain() {
	for key := range w.doubt {
		w.doubt[key]++
		w.refresh(w.s.placeIn(w.kind, key.Namespace, key.Name))
	}
}

// settleAll believes everything at once: at the beginning there is nothing to spare the receiver.
func (w *watch) settleAll() {
	for len(w.doubt) > 0 {
		w.lookAgain()
	}
}

// rescan looks at all there is and at all that was.
func (w *watch) rescan() {
	w.listen()
	places, err := w.s.places(w.kind, w.namespace)
	if err != nil {
		return // the directory cannot be read now: nothing is known, so nothing is told
	}
	seen := make(map[store.Key]bool, len(places))
	for _, p := range places {
		seen[p.key] = true
		w.refresh(p)
	}
	for _, keys := range []iter.Seq[store.Key]{maps.Keys(w.told), maps.Keys(w.news)} {
		for key := range keys {
			if !seen[key] {
				w.refresh(w.s.placeIn(w.kind, key.Namespace, key.Name))
			}
		}
	}
}

// listen asks the kernel about every directory there is. Asking twice is harmless.
func (w *watch) listen() {
	if w.notify.Events == nil {
		return
	}
	root := filepath.Join(w.s.dir, w.kind.Plural)
	dirs := []string{root}
	if w.kind.Namespaced {
		namespaces := []string{w.namespace}
		if w.namespace == "" {
			namespaces, _ = w.s.namespaces(w.kind) // rescan will say
		}
		for _, ns := range namespaces {
			dirs = append(dirs, filepath.Join(root, ns))
		}
	}
	for _, dir := range dirs {
		// A namespace that is not there yet is listened to when it appears; what the
		// kernel refuses is found by rescanning.
		_ = w.notify.Add(dir)
	}
}

// notice looks at the path that the kernel named.
func (w *watch) notice(path string) {
	rel, err := filepath.Rel(filepath.Join(w.s.dir, w.kind.Plural), path)
	if err != nil {
		return
	}
	ns, file := filepath.Split(rel)
	ns = filepath.Clean(ns)
	if ns == "." {
		ns = ""
	}
	if w.kind.Namespaced && ns == "" {
		if (w.namespace == "" || w.namespace == file) && isPart(file) {
			w.listen()
			if places, err := w.s.places(w.kind, file); err == nil {
				for _, p := range places {
					w.refresh(p)
				}
			}
		}
		return
	}
	if name, ok := nameOf(file); ok && (w.namespace == "" || w.namespace == ns) {
		w.refresh(w.s.placeIn(w.kind, ns, name))
	}
}
