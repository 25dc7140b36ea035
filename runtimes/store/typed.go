// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// Get is Store.Get for a type such as *v1alpha1.Cluster.
func Get[T v1alpha1.Object](ctx context.Context, s Store, namespace, name string) (T, error) {
	o, err := s.Get(ctx, v1alpha1.KindFor[T]().Name, namespace, name)
	if err != nil {
		var none T
		return none, err
	}
	return o.(T), nil
}

// List is Store.List for a type such as *v1alpha1.Cluster. As there, objects
// and a BrokenObjects error can come together.
func List[T v1alpha1.Object](ctx context.Context, s Store, namespace string, selector map[string]string) ([]T, error) {
	objects, err := s.List(ctx, v1alpha1.KindFor[T]().Name, namespace, selector)
	list := make([]T, len(objects))
	for i, o := range objects {
		list[i] = o.(T)
	}
	return list, err
}

// Mutate reads an object, changes it with f, and stores it; and begins again
// when somebody was faster, until ctx ends. So f may run several times, and must
// not act on anything but the object. An error of f is returned as it is and
// nothing is stored.
func Mutate[T v1alpha1.Object](ctx context.Context, s Store, namespace, name string, f func(T) error) (T, error) {
	return retry(ctx, s, namespace, name, f, s.Update)
}

// MutateStatus is Mutate for the status; what f changes elsewhere is lost.
func MutateStatus[T v1alpha1.Object](ctx context.Context, s Store, namespace, name string, f func(T) error) (T, error) {
	return retry(ctx, s, namespace, name, f, s.UpdateStatus)
}

func retry[T v1alpha1.Object](ctx context.Context, s Store, namespace, name string, f func(T) error, put func(context.Context, v1alpha1.Object) error) (T, error) {
	var none T
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		o, err := Get[T](ctx, s, namespace, name)
		if err != nil {
			return none, err
		}
		if err := f(o); err != nil {
			return none, err
		}
		err = put(ctx, o)
		if err == nil {
			return o, nil
		}
		if !apierrors.IsConflict(err) {
			return none, err
		}
		// Those who lost together must not come back together.
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return none, fmt.Errorf("%w (last: %w)", ctx.Err(), err)
		case <-timer.C:
		}
	}
}

// UpdateSpec is Update for an object that a person changed: that others wrote its
// status or added annotations meanwhile is no conflict, that they changed its spec
// is. o becomes what is stored.
func UpdateSpec[T v1alpha1.Object](ctx context.Context, s Store, o T) error {
	err := s.Update(ctx, o)
	if !apierrors.IsConflict(err) {
		return err
	}
	stored, err := Mutate(ctx, s, o.GetNamespace(), o.GetName(), func(now T) error {
		if now.GetGeneration() != o.GetGeneration() || now.GetUID() != o.GetUID() {
			return Stale(v1alpha1.KindOf(o), o.GetName())
		}
		reflect.ValueOf(v1alpha1.SpecOf(now)).Elem().Set(reflect.ValueOf(v1alpha1.SpecOf(o)).Elem())
		now.SetLabels(o.GetLabels())
		notes := now.GetAnnotations()
		for k, v := range o.GetAnnotations() {
			if notes == nil {
				notes = map[string]string{}
			}
			notes[k] = v
		}
		now.SetAnnotations(notes)
		return nil
	})
	if err != nil {
		return err
	}
	v1alpha1.Assign(o, stored)
	return nil
}
