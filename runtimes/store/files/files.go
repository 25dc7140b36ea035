// SPDX-License-Identifier: Apache-2.0

package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Store is a directory of objects. It has no state of its own but the path, and a
// memory of what texts say, so any number may be open on one directory, in any number of
// processes.
type Store struct {
	dir    string
	parsed *parsed
	clock  func() time.Time
	notify func() (*fsnotify.Watcher, error) // fails when the kernel has no more to give
}

var _ store.Store = (*Store)(nil)

const suffix = ".yaml"

// Open makes the directory unless it is there, and clears away what killed
// writers left behind. Whoever may only read can open it too. Clock gives the
// times of creation and deletion.
func Open(dir string, clock func() time.Time) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open object store: %w", err)
	}
	s := &Store{dir: dir, parsed: &parsed{}, clock: clock, notify: fsnotify.NewWatcher}
	var denied error // to make it: whoever may only read opens what is there
	for _, k := range v1alpha1.Kinds() {
		if err := makeDir(filepath.Join(dir, k.Plural), 0o755); errors.Is(err, fs.ErrPermission) {
			denied = err
		} else if err != nil {
			return nil, fmt.Errorf("open object store: %w", err)
		}
	}
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && denied != nil {
		return nil, fmt.Errorf("open object store: %w", denied)
	} else if err != nil {
		return nil, fmt.Errorf("open object store: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("open object store: %s is not a directory", dir)
	}
	if err := s.sweep(); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("open object store: %w", err)
	}
	return s, nil
}

// place is one object's file, known to stay inside the directory.
type place struct {
	kind v1alpha1.Kind
	key  store.Key
	path string

	parsed *parsed
}

func kindOf(kind string) (v1alpha1.Kind, error) {
	for _, k := range v1alpha1.Kinds() {
		if k.Name == kind {
			return k, nil
		}
	}
	return v1alpha1.Kind{}, store.Unknown(kind)
}

func (s *Store) place(kind, namespace, name string) (place, error) {
	k, err := kindOf(kind)
	if err != nil {
		return place{}, err
	}
	if !k.Namespaced {
		namespace = ""
	}
	if !isPart(name) || (k.Namespaced && !isPart(namespace)) {
		return place{}, store.NotFound(k, name)
	}
	return s.placeIn(k, namespace, name), nil
}

func (s *Store) placeIn(k v1alpha1.Kind, namespace, name string) place {
	return place{
		kind: k, key: store.Key{Kind: k.Name, Namespace: namespace, Name: name},
		path: filepath.Join(s.dir, k.Plural, namespace, name+suffix), parsed: s.parsed,
	}
}

// longestPart is how long a name may be for file systems to take its file.
const longestPart = 255 - len(suffix)

// isPart keeps names from leading out of the directory, or to a hidden file.
func isPart(s string) bool {
	return s != "" && len(s) <= longestPart && s[0] != '.' && !strings.ContainsAny(s, "/\\\x00")
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, kind, namespace, name string) (v1alpha1.Object, error) {
	p, err := s.place(kind, namespace, name)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := p.read()
	return r.object, err
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind, namespace string, selector map[string]string) ([]v1alpha1.Object, error) {
	k, err := kindOf(kind)
	if err != nil {
		return nil, err
	}
	places, err := s.places(k, namespace)
	if err != nil {
		return nil, err
	}
	var objects []v1alpha1.Object
	var broken store.BrokenObjects
	for _, p := range places {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := p.read()
		var b *store.BrokenObject
		switch {
		case errors.As(err, &b):
			broken = append(broken, b)
		case err != nil: // removed since the directory was read
		case labels.SelectorFromSet(selector).Matches(labels.Set(r.object.GetLabels())):
			objects = append(objects, r.object)
		}
	}
	if len(broken) > 0 {
		return objects, broken
	}
	return objects, nil
}

// places lists the files of a kind, by namespace and name.
func (s *Store) places(k v1alpha1.Kind, namespace string) ([]place, error) {
	namespaces := []string{""}
	if k.Namespaced {
		namespaces = []string{namespace}
		if namespace == "" {
			var err error
			if namespaces, err = s.namespaces(k); err != nil {
				return nil, err
			}
		} else if !isPart(namespace) {
			return nil, nil
		}
	}
	var places []place
	for _, ns := range namespaces {
		entries, err := os.ReadDir(filepath.Join(s.dir, k.Plural, ns))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list %s: %w", k.Plural, err)
		}
		var names []string
		for _, e := range entries {
			if name, ok := nameOf(e.Name()); ok && !e.IsDir() {
				names = append(names, name)
			}
		}
		// With their suffix on, a-b comes before a.
		slices.Sort(names)
		for _, name := range names {
			places = append(places, s.placeIn(k, ns, name))
		}
	}
	return places, nil
}

func (s *Store) namespaces(k v1alpha1.Kind) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, k.Plural))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", k.Plural, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && isPart(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// nameOf passes over temporary files, backups of editors and whatever else lies about.
func nameOf(file string) (string, bool) {
	name, ok := strings.CutSuffix(file, suffix)
	return name, ok && isPart(name)
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, o v1alpha1.Object) error {
	k := v1alpha1.KindOf(o)
	if o.GetResourceVersion() != "" {
		return store.Invalid(k, o.GetName(), v1alpha1.FieldErrors{{Type: v1alpha1.ErrorForbidden, Path: "metadata.resourceVersion", Reason: "must not be given for a new object"}})
	}
	fresh := copied(o)
	if err := store.Admit(fresh, nil); err != nil {
		return err
	}
	if n := len(fresh.GetName()); n > longestPart {
		return store.Invalid(k, fresh.GetName(), v1alpha1.FieldErrors{{
			Type: v1alpha1.ErrorInvalid, Path: "metadata.name", Value: fresh.GetName(),
			Reason: fmt.Sprintf("has %d characters, at most %d are the name of a file", n, longestPart),
		}})
	}
	v1alpha1.AssignStatus(fresh, k.New())
	fresh.SetUID(types.UID(uuid.NewString()))
	fresh.SetGeneration(1)
	fresh.SetCreationTimestamp(metav1.NewTime(s.clock().UTC().Truncate(time.Second)))
	fresh.SetDeletionTimestamp(nil)

	p, err := s.place(k.Name, fresh.GetNamespace(), fresh.GetName())
	if err != nil {
		return err
	}
	return s.locked(ctx, p, func() error {
		if _, err := os.Lstat(p.path); err == nil {
			return store.AlreadyExists(k, p.key.Name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("create %v: %w", p.key, err)
		}
		return p.write(o, fresh, 1)
	})
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, o v1alpha1.Object) error {
	return s.change(ctx, o, func(cur, next v1alpha1.Object) (v1alpha1.Object, error) {
		if err := store.Admit(next, cur); err != nil {
			return nil, err
		}
		v1alpha1.AssignStatus(next, cur)
		next.SetUID(cur.GetUID())
		next.SetCreationTimestamp(cur.GetCreationTimestamp())
		next.SetDeletionTimestamp(cur.GetDeletionTimestamp())
		next.SetDeletionGracePeriodSeconds(cur.GetDeletionGracePeriodSeconds())
		next.SetGeneration(cur.GetGeneration())
		same, err := sameSpec(cur, next)
		if !same {
			next.SetGeneration(cur.GetGeneration() + 1)
		}
		return next, err
	})
}

// UpdateStatus implements store.Store.
func (s *Store) UpdateStatus(ctx context.Context, o v1alpha1.Object) error {
	return s.change(ctx, o, func(cur, next v1alpha1.Object) (v1alpha1.Object, error) {
		v1alpha1.AssignStatus(cur, next)
		return cur, nil
	})
}

// change replaces what is stored, cur, by what edit makes of it and of a copy of
// o, unless somebody was faster; and makes o what is stored then.
func (s *Store) change(ctx context.Context, o v1alpha1.Object, edit func(cur, next v1alpha1.Object) (v1alpha1.Object, error)) error {
	k := v1alpha1.KindOf(o)
	p, err := s.place(k.Name, o.GetNamespace(), o.GetName())
	if err != nil {
		return err
	}
	if o.GetResourceVersion() == "" {
		return store.Invalid(k, o.GetName(), v1alpha1.FieldErrors{{Type: v1alpha1.ErrorRequired, Path: "metadata.resourceVersion", Reason: "must be given for an update"}})
	}
	next := copied(o)
	return s.locked(ctx, p, func() error {
		r, err := p.read()
		if err != nil {
			return err
		}
		cur := r.object
		switch {
		case o.GetUID() != "" && o.GetUID() != cur.GetUID():
			return store.Conflict(k, o.GetName(), fmt.Sprintf("the object was deleted and made anew: its UID is %s, not %s", cur.GetUID(), o.GetUID()))
		case o.GetResourceVersion() != cur.GetResourceVersion():
			return store.Stale(k, o.GetName())
		}
		before, err := v1alpha1.Encode(cur)
		if err != nil {
			return err
		}
		next, err := edit(cur, next)
		if err != nil {
			return err
		}
		if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 {
			v1alpha1.Assign(o, next)
			return p.remove()
		}
		next.SetResourceVersion(o.GetResourceVersion())
		after, err := v1alpha1.Encode(next)
		if err != nil {
			return err
		}
		if bytes.Equal(before, after) {
			v1alpha1.Assign(o, next)
			return nil
		}
		return p.write(o, next, r.count+1)
	})
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, kind, namespace, name string, pre store.Preconditions) error {
	p, err := s.place(kind, namespace, name)
	if err != nil {
		return err
	}
	return s.locked(ctx, p, func() error {
		r, err := p.read()
		if err != nil {
			return err
		}
		if err := store.CheckPreconditions(r.object, pre); err != nil {
			return err
		}
		if len(r.object.GetFinalizers()) == 0 {
			return p.remove()
		}
		if r.object.GetDeletionTimestamp() != nil {
			return nil
		}
		now := metav1.NewTime(s.clock().UTC().Truncate(time.Second))
		r.object.SetDeletionTimestamp(&now)
		r.object.SetGeneration(r.object.GetGeneration() + 1)
		return p.write(r.object, r.object, r.count+1)
	})
}

func (p place) remove() error {
	if err := os.Remove(p.path); err != nil {
		return fmt.Errorf("remove %v: %w", p.key, err)
	}
	p.parsed.forget(p.path)
	return atomicfile.SyncDir(filepath.Dir(p.path))
}

func sameSpec(a, b v1alpha1.Object) (bool, error) {
	x, err := json.Marshal(v1alpha1.SpecOf(a))
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(v1alpha1.SpecOf(b))
	return bytes.Equal(x, y), err
}
