// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// NotInstalledError says that the API server does not know a kind: KubeBlocks was not
// installed there, or an older release of it.
type NotInstalledError struct{ Kind v1alpha1.Kind }

func (e *NotInstalledError) Error() string {
	return fmt.Sprintf("the Kubernetes API does not know %s", e.Kind.Resource())
}

// answer is the body of the answer to r. Errors are those of apierrors, but for
// *NotInstalledError, which Kubernetes would call NotFound as well.
func answer(ctx context.Context, k v1alpha1.Kind, r *rest.Request) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	res := r.Do(ctx)
	if err := res.Error(); err != nil {
		return nil, ofServer(k, err)
	}
	return res.Raw()
}

// UnreachableError says that the API server gave no answer. It is a store.ErrUnreachable.
type UnreachableError struct{ Err error }

func (e *UnreachableError) Error() string {
	return "the Kubernetes API gave no answer: " + e.Err.Error()
}
func (e *UnreachableError) Unwrap() []error { return []error{store.ErrUnreachable, e.Err} }

// Unreachable is err of a request as an *UnreachableError, unless it is the server's own
// answer or the end of a context.
func Unreachable(err error) error {
	var status apierrors.APIStatus
	if err == nil || errors.As(err, &status) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &UnreachableError{Err: err}
}

// ofServer tells a path that the server does not serve from an object that is not there,
// and a server that does not answer from one that refuses.
func ofServer(k v1alpha1.Kind, err error) error {
	status, ok := err.(apierrors.APIStatus)
	if !ok || status.Status().Code != http.StatusNotFound {
		return Unreachable(err)
	}
	if d := status.Status().Details; d != nil {
		for _, c := range d.Causes {
			if c.Type == metav1.CauseTypeUnexpectedServerResponse {
				return &NotInstalledError{Kind: k}
			}
		}
	}
	return err
}

// parse reads one object of kind k. The error is a *store.BrokenObject.
func parse(k v1alpha1.Kind, text []byte) (v1alpha1.Object, error) {
	o, err := v1alpha1.Decode(text)
	if err == nil && o.GroupVersionKind() != k.GroupVersionKind() {
		err = v1alpha1.FieldErrors{{Type: v1alpha1.ErrorInvalid, Path: "kind", Value: o.GroupVersionKind().Kind, Reason: "is not " + k.Name}}
	}
	if err == nil {
		o.SetManagedFields(nil) // who wrote what is the server's business, and is long
		o.SetDefaults()
		err = o.Validate()
	}
	if err == nil {
		return o, nil
	}
	key := head(k, text).key
	place := k.Resource() + "/" + key.Name
	if key.Namespace != "" {
		place += " in namespace " + key.Namespace
	}
	return nil, &store.BrokenObject{Key: key, Place: place, Err: err}
}

// heading is what can be read of any object.
type heading struct {
	key     store.Key
	uid     types.UID
	version string
}

func head(k v1alpha1.Kind, text []byte) heading {
	var o struct {
		Metadata struct {
			Namespace, Name, ResourceVersion string
			UID                              types.UID
		} `json:"metadata"`
	}
	_ = json.Unmarshal(text, &o) // what the server sends is JSON; what is not has no name
	m := o.Metadata
	return heading{key: store.Key{Kind: k.Name, Namespace: m.Namespace, Name: m.Name}, uid: m.UID, version: m.ResourceVersion}
}
