// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"iter"
	"maps"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// State is how an object was found.
type State struct {
	Gone bool
	Mark string    // differs between any two states of one name
	UID  types.UID // not of one that is Gone or broken
	Text []byte    // of which the object is read again
	Err  error     // it is broken
}

// Receiver is used by one goroutine.
type Receiver struct {
	kind  v1alpha1.Kind
	parse func(key store.Key, text []byte) (v1alpha1.Object, error)

	told  map[store.Key]told
	news  map[store.Key]State
	order []store.Key        // of the news; keys without news are passed over
	first map[store.Key]bool // what was there at the beginning and was not told yet
	begun bool               // Synced was sent
}

// told is the last that the receiver heard of an object.
type told struct {
	text []byte    // of the last whole state; nil when none was told
	uid  types.UID // of that state
	mark string    // of what was told last, whole or broken
}

// New is a receiver who knows nothing. parse reads what State.Text holds; what it says of
// a Text that came without an Err may be that it is broken all the same.
func New(k v1alpha1.Kind, parse func(key store.Key, text []byte) (v1alpha1.Object, error)) *Receiver {
	return &Receiver{kind: k, parse: parse, told: map[store.Key]told{}, news: map[store.Key]State{}, first: map[store.Key]bool{}}
}

// Begin says that what was noted until now is all that there is: it is told before Synced.
func (r *Receiver) Begin() {
	for key := range r.news {
		r.first[key] = true
	}
}

// Note is the state of an object now.
func (r *Receiver) Note(key store.Key, n State) {
	was, known := r.told[key]
	if n.Gone && !known || !n.Gone && known && was.mark == n.Mark {
		// The receiver never heard of what is gone, or it heard of this very state.
		delete(r.news, key)
		delete(r.first, key)
		return
	}
	if _, waits := r.news[key]; !waits {
		r.order = append(r.order, key)
	}
	r.news[key] = n
}

// Knows tells whether n is what the receiver knows or is about to hear.
func (r *Receiver) Knows(key store.Key, n State) bool {
	if next, ok := r.news[key]; ok {
		return next.Gone == n.Gone && next.Mark == n.Mark
	}
	was, ok := r.told[key]
	return ok != n.Gone && (n.Gone || was.mark == n.Mark)
}

// Keys are those of all objects that were told of or are to be, some of them twice. What
// is noted meanwhile may be left out.
func (r *Receiver) Keys() iter.Seq[store.Key] {
	return func(yield func(store.Key) bool) {
		for _, keys := range []iter.Seq[store.Key]{maps.Keys(r.told), maps.Keys(r.news)} {
			for key := range keys {
				if !yield(key) {
					return
				}
			}
		}
	}
}

// Next is the event to send now and what to do once it is sent; nil if there is none.
func (r *Receiver) Next() (*store.Event, func()) {
	if !r.begun && len(r.first) == 0 {
		return &store.Event{Type: store.Synced}, func() { r.begun = true }
	}
	for len(r.order) > 0 {
		key := r.order[0]
		n, ok := r.news[key]
		if !ok {
			r.order = r.order[1:]
			continue
		}
		was := r.told[key]
		done := func() {
			delete(r.news, key)
			delete(r.first, key)
			r.order = r.order[1:]
		}
		o, err := v1alpha1.Object(nil), n.Err
		if err == nil && !n.Gone {
			o, err = r.parse(key, n.Text)
		}
		if err != nil {
			return &store.Event{Type: store.Broken, Key: key, Err: err}, func() {
				was.mark = n.Mark
				r.told[key] = was
				done()
			}
		}
		if was.text != nil && (n.Gone || n.UID != was.uid) {
			return &store.Event{Type: store.Deleted, Key: key, Object: r.last(key, was)}, func() {
				delete(r.told, key)
				if n.Gone {
					done()
				}
			}
		}
		if n.Gone { // the receiver only knew that it was broken
			delete(r.told, key)
			done()
			continue
		}
		t := store.Modified
		if was.text == nil {
			t = store.Added
		}
		return &store.Event{Type: t, Key: key, Object: o}, func() {
			r.told[key] = told{text: n.Text, uid: n.UID, mark: n.Mark}
			done()
		}
	}
	return nil, nil
}

// last is an object as it was last told.
func (r *Receiver) last(key store.Key, was told) v1alpha1.Object {
	o, err := r.parse(key, was.text)
	if err != nil {
		// It was parsed before it was told, so this cannot be; the receiver must hear all the same.
		o = r.kind.New()
		o.SetNamespace(key.Namespace)
		o.SetName(key.Name)
		o.SetUID(was.uid)
	}
	return o
}
