// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/fsnotify/fsnotify"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/receiver"
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
	read := func(key store.Key, text []byte) (v1alpha1.Object, error) {
		r, err := s.placeIn(k, key.Namespace, key.Name).parse(text)
		return r.object, err
	}
	w := &watch{
		s: s, kind: k, namespace: namespace, every: rescanEvery, out: make(chan store.Event),
		receiver: receiver.New(k, read), doubt: make(map[store.Key]int),
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
	w.receiver.Begin()
	go w.run(ctx)
	return w.out, nil
}

// watch passes on to a receiver what is found in the directories.
type watch struct {
	s         *Store
	kind      v1alpha1.Kind
	namespace string
	notify    *fsnotify.Watcher
	every     time.Duration
	out       chan store.Event
	receiver  *receiver.Receiver
	doubt     map[store.Key]int // gone or broken, and how often it was looked at again
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

// refresh looks at one file. Bad news waits in doubt first.
func (w *watch) refresh(p place) {
	n := receiver.State{}
	var err error
	n.Text, err = os.ReadFile(p.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		n.Gone = true
	case err != nil:
		n.Err = &store.BrokenObject{Key: p.key, Place: p.path, Err: errors.Unwrap(err)}
		n.Mark = err.Error()
	default:
		n.Mark = strconv.FormatUint(xxhash.Sum64(n.Text), 16)
	}
	if w.receiver.Knows(p.key, n) {
		delete(w.doubt, p.key)
		return
	}
	if err == nil {
		var r record
		if r, n.Err = p.parse(n.Text); n.Err == nil {
			n.UID = r.object.GetUID()
		}
	}
	if looks := w.doubt[p.key]; looks < 2 && (n.Gone || n.Err != nil) {
		w.doubt[p.key] = looks // lookAgain counts
		return
	}
	delete(w.doubt, p.key)
	w.receiver.Note(p.key, n)
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
	for _, key := range slices.Collect(w.receiver.Keys()) {
		if !seen[key] {
			w.refresh(w.s.placeIn(w.kind, key.Namespace, key.Name))
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
