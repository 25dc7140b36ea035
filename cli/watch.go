// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// listed is how the objects of one kind are listed, once or for as long as somebody
// watches.
type listed[T v1alpha1.Object] struct {
	plural string       // "backups"
	names  []string     // only these; one that is not there is an error
	keep   func(T) bool // nil keeps all
	order  func(a, b T) int
	look   func(objects ...T) // nil, or what is done to objects before they are shown
	table  func(objects []T, wide bool) (*table, error)
}

// watchFlag lets a list go on with a row for each change. A list that has it ends in
// listed.run or watchValues.
func (l *listing) watchFlag(c *cobra.Command) {
	c.Flags().BoolVarP(&l.watch, "watch", "w", false, "go on with a row for each change, until ^C")
}

func (x *listed[T]) wanted(o T) bool {
	return (len(x.names) == 0 || slices.Contains(x.names, o.GetName())) && (x.keep == nil || x.keep(o))
}

func (x *listed[T]) run(ctx context.Context, a *app, l listing) error {
	objects, err := list[T](ctx, a, l)
	if err != nil {
		return err
	}
	if objects, err = pick(objects, x.names); err != nil {
		return err
	}
	objects = slices.DeleteFunc(objects, func(o T) bool { return !x.wanted(o) })
	if x.order != nil {
		slices.SortStableFunc(objects, x.order)
	}
	if x.look != nil {
		x.look(objects...)
	}
	if l.watch {
		return x.watch(ctx, a, l, objects)
	}
	t := &table{}
	if l.output == "" || l.output == "wide" {
		if t, err = x.table(objects, l.output == "wide"); err != nil {
			return err
		}
	}
	return show(a, l, objects, x.plural, func(bool) *table { return t })
}

// watch prints what is there, then each object that changed, its last state when it
// was deleted. A change that nothing of what is printed shows is passed over.
func (x *listed[T]) watch(ctx context.Context, a *app, l listing, first []T) error {
	out, err := x.printer(a, l)
	if err != nil {
		return err
	}
	if err := out(first...); err != nil {
		return err
	}
	s, err := a.objects(ctx)
	if err != nil {
		return err
	}
	selector, err := parseSelector(l.selector)
	if err != nil {
		return err
	}
	kind, namespace := v1alpha1.KindFor[T](), a.namespace
	if l.all || !kind.Namespaced {
		namespace = ""
	}
	events, err := s.Watch(ctx, kind.Name, namespace)
	if err != nil {
		return err
	}
	for e := range events {
		switch e.Type {
		case store.Synced:
			continue
		case store.Broken:
			a.warn("%v", e.Err)
			continue
		}
		if o := e.Object.(T); x.wanted(o) && selector.Matches(k8slabelsOf(o)) {
			if x.look != nil {
				x.look(o)
			}
			if err := out(o); err != nil {
				return err
			}
		}
	}
	return a.watched(ctx)
}

// watched is the end of what only ends with ^C: there is nothing to say.
func (a *app) watched(ctx context.Context) error {
	a.quiet = true
	return context.Cause(ctx)
}

// printer prints objects that changed, in the form that was asked for.
func (x *listed[T]) printer(a *app, l listing) (func(objects ...T) error, error) {
	switch l.output {
	case "json", "yaml", "name":
		last := map[string]string{}
		return func(objects ...T) error {
			for _, o := range objects {
				text, err := json.Marshal(o)
				if err != nil {
					return err
				}
				key := store.KeyOf(o).String()
				if last[key] == string(text) {
					continue
				}
				if last[key] = string(text); l.output == "yaml" && len(last) > 1 {
					a.say("---")
				}
				if _, err := a.object(l.output, o); err != nil {
					return err
				}
			}
			return nil
		}, nil
	case "", "wide":
	default:
		return nil, unknownOutput(l.output, listForms)
	}
	rows := stream{a: a}
	return func(objects ...T) error {
		t, err := x.table(objects, l.output == "wide")
		if err != nil {
			return err
		}
		keys := make([]string, len(objects))
		for i, o := range objects {
			keys[i] = store.KeyOf(o).String()
		}
		rows.add(t, keys)
		return nil
	}, nil
}

// stream is a table that goes on growing. Its columns keep their widths as long as the
// new rows let them.
type stream struct {
	a      *app
	widths []int
	last   map[string]string
}

// add prints the rows that say something new. keys tell which rows are of one thing.
func (s *stream) add(t *table, keys []string) {
	if len(t.rows) == 0 {
		return
	}
	t.clean()
	begins := s.widths == nil
	if begins {
		s.widths, s.last = make([]int, len(t.header)), map[string]string{}
		widen(s.widths, t.header)
	}
	for _, r := range t.rows {
		widen(s.widths, r)
	}
	if begins {
		writeRow(s.a.stdio.Out, s.widths, t.header)
	}
	for i, r := range t.rows {
		text, _ := json.Marshal(r)
		if s.last[keys[i]] != string(text) {
			s.last[keys[i]] = string(text)
			writeRow(s.a.stdio.Out, s.widths, r)
		}
	}
}

// watchEvery is how often is asked for what nobody reports the changes of.
const watchEvery = time.Second

// watchValues is listed.watch for what is no object: get is asked again and again.
func watchValues[T any](ctx context.Context, a *app, form string, get func(context.Context) ([]T, error), key func(T) string, name func(T) string, t func(values []T, wide bool) *table) error {
	rows := stream{a: a}
	last := map[string]string{}
	for {
		values, err := get(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		switch form {
		case "", "wide":
			keys := make([]string, len(values))
			for i, v := range values {
				keys[i] = key(v)
			}
			rows.add(t(values, form == "wide"), keys)
		case "json", "yaml", "name":
			for _, v := range values {
				text, err := json.Marshal(v)
				if err != nil {
					return err
				}
				if last[key(v)] == string(text) {
					continue
				}
				last[key(v)] = string(text)
				if form == "name" {
					a.say("%s", name(v))
					continue
				}
				if form == "yaml" && len(last) > 1 {
					a.say("---")
				}
				if err := a.value(form, v); err != nil {
					return err
				}
			}
		default:
			return unknownOutput(form, listForms)
		}
		select {
		case <-ctx.Done():
			return a.watched(ctx)
		case <-time.After(watchEvery):
		}
	}
}

// asker is what a runtime can do beyond keeping objects, if this one can.
func asker[T any](ctx context.Context, a *app, what string) (T, error) {
	rt, err := a.runtime(ctx)
	if err != nil {
		var none T
		return none, err
	}
	can, ok := rt.(T)
	if !ok {
		return can, errors.New(what + " cannot be asked for in this context")
	}
	return can, nil
}
