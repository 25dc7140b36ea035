// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/storetest"
)

func addon(name string) *v1alpha1.Addon {
	return &v1alpha1.Addon{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func create(t *testing.T, s *Store, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := s.Create(t.Context(), addon(name)); err != nil {
			t.Fatal(err)
		}
	}
}

func enable(t *testing.T, s *Store, name string) {
	t.Helper()
	if _, err := store.Mutate(t.Context(), s, "", name, func(a *v1alpha1.Addon) error {
		a.Spec.Install.Enabled = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func drop(t *testing.T, s *Store, name string) {
	t.Helper()
	if err := s.Delete(t.Context(), v1alpha1.KindAddon, "", name, store.Preconditions{}); err != nil {
		t.Fatal(err)
	}
}

func watching(t *testing.T, s *Store) <-chan store.Event {
	t.Helper()
	events, err := s.Watch(t.Context(), v1alpha1.KindAddon, "")
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// want receives events until there was one of each, in any order.
func want(t *testing.T, events <-chan store.Event, all ...string) {
	t.Helper()
	left := make(map[string]bool)
	for _, e := range all {
		left[e] = true
	}
	for len(left) > 0 {
		e := storetest.Next(t, events)
		word := strings.TrimSpace(string(e.Type) + " " + e.Key.Name)
		if !left[word] {
			t.Fatalf("got %q (%v), want of %v", word, e.Err, left)
		}
		delete(left, word)
	}
}

// TestWatchResumes: the way to the server breaks in the middle of a watch, and things go
// on behind it.
func TestWatchResumes(t *testing.T) {
	s, c := empty(t)
	create(t, s, "stays", "changes", "goes", "anew")
	g, config := newGate(t, c)
	events := watching(t, openAt(t, config))
	want(t, events, "Added stays", "Added changes", "Added goes", "Added anew")
	want(t, events, "Synced")
	g.set(false)
	enable(t, s, "changes")
	drop(t, s, "goes")
	drop(t, s, "anew")
	create(t, s, "anew", "new")
	g.set(true)
	// Anew is another object with the same name.
	want(t, events, "Modified changes", "Deleted goes", "Deleted anew", "Added anew", "Added new")
	enable(t, s, "stays")
	want(t, events, "Modified stays")
}

// TestWatchGone: the server does not know the place any more (410 Gone), as after a long
// separation. Everything is listed again, and what went is told.
func TestWatchGone(t *testing.T) {
	s, c := empty(t)
	create(t, s, "stays", "goes")
	g, config := newGate(t, c)
	far := openAt(t, config)
	k, _ := v1alpha1.LookupKind(v1alpha1.KindAddon)
	texts, _, err := far.list(t.Context(), k, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	g.set(false)
	w := newWatch(k)
	w.replace(texts)
	src := &source{s: far, kind: k, version: "1", changes: make(chan change)} // etcd's very first
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go w.run(ctx, src)
	want(t, w.out, "Synced", "Added stays", "Added goes")
	drop(t, s, "goes")
	create(t, s, "new")
	g.set(true)
	want(t, w.out, "Deleted goes", "Added new")
	enable(t, s, "new")
	want(t, w.out, "Modified new")
}

// The server that TestWatchGone is about does answer 410, and not with what happened.
func TestServerSaysGone(t *testing.T) {
	s, _ := empty(t)
	k, _ := v1alpha1.LookupKind(v1alpha1.KindAddon)
	src := &source{s: s, kind: k, version: "1", changes: make(chan change)}
	_, err := src.once(t.Context())
	if err == nil || !strings.Contains(err.Error(), "too old resource version") {
		t.Errorf("%T %v", err, err)
	}
}

// TestWatchSlow: a receiver that does not receive costs no memory for changes, loses no
// end, and does not lose the stream.
func TestWatchSlow(t *testing.T) {
	s, _ := empty(t)
	create(t, s, "a", "gone")
	events := watching(t, s)
	const times = 60
	for i := range times {
		if _, err := store.Mutate(t.Context(), s, "", "a", func(a *v1alpha1.Addon) error {
			a.Spec.Description = fmt.Sprint(i)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	drop(t, s, "gone")
	create(t, s, "last")
	var seen []string
	for last := ""; last != fmt.Sprint(times-1) || len(seen) == 0 || seen[len(seen)-1] != "Added last"; {
		e := storetest.Next(t, events)
		seen = append(seen, strings.TrimSpace(string(e.Type)+" "+e.Key.Name))
		if e.Key.Name == "a" {
			last = e.Object.(*v1alpha1.Addon).Spec.Description
		}
	}
	if len(seen) > times/2 {
		t.Errorf("changes were queued: %d events, %v", len(seen), seen)
	}
}

// TestBroken: a field of a newer release is neither dropped nor overlooked, and the other
// objects are not held up by it.
func TestBroken(t *testing.T) {
	s, c := empty(t)
	create(t, s, "good", "turns")
	c.Kubectl(t, "patch", "crd", "addons.extensions.kubeblocks.io", "--type=json", "-p",
		`[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/future","value":{"type":"string"}}]`)
	defer install(t, c)
	k, _ := v1alpha1.LookupKind(v1alpha1.KindAddon)
	future := map[string]any{"apiVersion": "extensions.kubeblocks.io/v1alpha1", "kind": "Addon", "metadata": map[string]any{"name": "new"}, "spec": map[string]any{"future": "yes"}}
	// The server takes a moment to learn the new definition.
	deadline := time.Now().Add(30 * time.Second)
	for {
		text, err := post(t.Context(), s, k, "", future, "dryRun", "All")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), `"future":"yes"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the definition was not changed")
		}
		time.Sleep(50 * time.Millisecond)
	}
	// A stream from before would be of the old definition, which has no such field.
	events := watching(t, s)
	want(t, events, "Added good", "Added turns")
	want(t, events, "Synced")
	if _, err := post(t.Context(), s, k, "", future); err != nil {
		t.Fatal(err)
	}
	want(t, events, "Broken new")
	c.Kubectl(t, "patch", "addon", "turns", "--type=merge", "-p", `{"spec":{"future":"yes"}}`)
	want(t, events, "Broken turns")

	_, err := s.Get(t.Context(), v1alpha1.KindAddon, "", "new")
	var broken *store.BrokenObject
	if !errors.As(err, &broken) || broken.Key != (store.Key{Kind: "Addon", Name: "new"}) ||
		!strings.HasPrefix(err.Error(), `addons.extensions.kubeblocks.io/new: unknown field "spec.future"`) {
		t.Errorf("%T %v", err, err)
	}
	objects, err := s.List(t.Context(), v1alpha1.KindAddon, "", nil)
	var all store.BrokenObjects
	if !errors.As(err, &all) || len(all) != 2 || len(objects) != 1 {
		t.Errorf("%d objects, %v", len(objects), err)
	}
	c.Kubectl(t, "patch", "addon", "turns", "--type=json", "-p", `[{"op":"remove","path":"/spec/future"},{"op":"add","path":"/spec/description","value":"mended"}]`)
	want(t, events, "Modified turns")
	drop(t, s, "new") // what was never told whole is not told gone
	drop(t, s, "turns")
	want(t, events, "Deleted turns")
}

// TestReplace is what a list says to a receiver who knows of other things.
func TestReplace(t *testing.T) {
	k, _ := v1alpha1.LookupKind(v1alpha1.KindAddon)
	text := func(name, uid, version string) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"apiVersion":"extensions.kubeblocks.io/v1alpha1","kind":"Addon","metadata":{"name":%q,"uid":%q,"resourceVersion":%q},"spec":{}}`, name, uid, version))
	}
	w := newWatch(k)
	next := func(want string) {
		t.Helper()
		e, sent := w.receiver.Next()
		got := ""
		if e != nil {
			got = strings.TrimSpace(string(e.Type) + " " + e.Key.Name)
			sent()
		}
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	next("Synced")
	w.replace([]json.RawMessage{text("a", "1", "1"), text("b", "2", "1")})
	next("Added a")
	w.replace([]json.RawMessage{text("a", "1", "1")}) // b went before anybody heard of it
	next("")
	w.replace([]json.RawMessage{text("a", "3", "2")}) // another a
	next("Deleted a")
	next("Added a")
	next("")
	w.replace([]json.RawMessage{text("a", "3", "3")})
	w.replace(nil)
	next("Deleted a")
	next("")
	w.replace([]json.RawMessage{text("a", "4", "4")})
	w.replace(nil)
	w.replace([]json.RawMessage{text("a", "5", "5")})
	next("Added a")
	next("")
}
