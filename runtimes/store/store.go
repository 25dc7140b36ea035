// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// Key names an object. Kind is as the field `kind` spells it; Namespace is empty
// for kinds that are not namespaced.
type Key struct{ Kind, Namespace, Name string }

// String is "Cluster default/my-pg".
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// KeyOf names o.
func KeyOf(o v1alpha1.Object) Key {
	return Key{Kind: v1alpha1.KindOf(o).Name, Namespace: o.GetNamespace(), Name: o.GetName()}
}

// Preconditions of a deletion. An empty field asks for nothing.
type Preconditions struct{ UID, ResourceVersion string }

// EventType says what happened to an object.
type EventType string

// What a watch tells.
const (
	Added    EventType = "Added"    // Object is new, or was there when the watch began
	Modified EventType = "Modified" // Object is its newest state
	Deleted  EventType = "Deleted"  // Object is the last state that was told
	Synced   EventType = "Synced"   // all that was there when the watch began has been told
	Broken   EventType = "Broken"   // what is stored cannot be read; Err says why. What was told before still holds
)

// Event is one change. Object is nil for Synced and Broken, Key is empty for Synced.
type Event struct {
	Type   EventType
	Key    Key
	Object v1alpha1.Object
	Err    error
}

// Store keeps objects. Its methods may be called at the same time from many
// goroutines, and many processes may have the same objects open. Objects that
// are returned or sent belong to the caller.
//
// Namespace is ignored for kinds that are not namespaced.
type Store interface {
	// Get returns one object, with its defaults set. An object that is there and
	// cannot be read is a *BrokenObject.
	Get(ctx context.Context, kind, namespace, name string) (v1alpha1.Object, error)

	// List returns the objects of one namespace, or of all if it is "", that
	// have all the labels of selector, by namespace and name. When some of them
	// cannot be read the others are returned all the same, together with a
	// BrokenObjects error.
	List(ctx context.Context, kind, namespace string, selector map[string]string) ([]v1alpha1.Object, error)

	// Create stores a new object. It sets defaults, uid, resourceVersion,
	// generation and creationTimestamp in o, which must have no resourceVersion,
	// and empties the status. After a nil return o survives a power cut.
	Create(ctx context.Context, o v1alpha1.Object) error

	// Update stores the spec and the metadata of o, and makes o what is stored,
	// the status included. It is a conflict if o is not the newest state. A change
	// of nothing is not written and has no new resourceVersion. Taking the last
	// finalizer from an object that is being deleted removes it.
	Update(ctx context.Context, o v1alpha1.Object) error

	// UpdateStatus stores the status of o alone, and makes o what is stored. In
	// all else it is like Update.
	UpdateStatus(ctx context.Context, o v1alpha1.Object) error

	// Delete removes an object, or marks it with a deletionTimestamp if it has
	// finalizers. Deleting what is marked already does nothing. A precondition
	// that does not hold is a conflict.
	Delete(ctx context.Context, kind, namespace, name string, pre Preconditions) error

	// Watch sends each object of one namespace, or of all if it is "", as Added;
	// then Synced; then changes, until ctx ends, which closes the channel. The
	// last state of every object is sent, however slow the receiver is.
	Watch(ctx context.Context, kind, namespace string) (<-chan Event, error)
}
