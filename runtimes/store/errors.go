// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// ErrUnreachable is what a Store that is elsewhere says when it gave no answer.
var ErrUnreachable = errors.New("the objects cannot be reached")

// Passing tells that a Store's error is not about what was asked of it: the same may go
// well in a while.
func Passing(err error) bool {
	return errors.Is(err, ErrUnreachable) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// NotFound reads `clusters.apps.kubeblocks.io "x" not found`.
func NotFound(k v1alpha1.Kind, name string) error {
	return apierrors.NewNotFound(k.GroupVersionResource().GroupResource(), name)
}

// AlreadyExists reads `clusters.apps.kubeblocks.io "x" already exists`.
func AlreadyExists(k v1alpha1.Kind, name string) error {
	return apierrors.NewAlreadyExists(k.GroupVersionResource().GroupResource(), name)
}

// Conflict says that somebody else was faster, or that a precondition does not hold.
func Conflict(k v1alpha1.Kind, name, reason string) error {
	return apierrors.NewConflict(k.GroupVersionResource().GroupResource(), name, errors.New(reason))
}

// Stale is the conflict of an object that is not the newest state.
func Stale(k v1alpha1.Kind, name string) error {
	return Conflict(k, name, "the object has been modified; please apply your changes to the latest version and try again")
}

// Invalid reads `Cluster.apps.kubeblocks.io "x" is invalid: …`. The reasons are
// kept one by one as its causes when err is v1alpha1.FieldErrors, which
// errors.As finds in it as well.
func Invalid(k v1alpha1.Kind, name string, err error) error {
	details := &metav1.StatusDetails{Group: k.Group, Kind: k.Name, Name: name}
	var l v1alpha1.FieldErrors
	errors.As(err, &l)
	for _, e := range l {
		details.Causes = append(details.Causes, metav1.StatusCause{
			Type: metav1.CauseType("FieldValue" + string(e.Type)), Field: e.Path, Message: e.Error(),
		})
	}
	status := &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Details: details,
		Message: fmt.Sprintf("%s.%s %q is invalid: %v", k.Name, k.Group, name, err),
	}}
	return &invalid{StatusError: status, cause: err}
}

// invalid is a StatusError that remembers the fields.
type invalid struct {
	*apierrors.StatusError
	cause error
}

func (e *invalid) Unwrap() []error { return []error{e.StatusError, e.cause} }

// Unknown is the answer for a kind that is not ours.
func Unknown(kind string) error {
	return apierrors.NewBadRequest(fmt.Sprintf("there is no kind %q", kind))
}

// Admit sets the defaults of o and is nil or the Invalid error of what
// it says or of how it differs from old, which is nil for a new object. Every
// Store calls it before it writes.
func Admit(o, old v1alpha1.Object) error {
	o.SetDefaults()
	var all, l v1alpha1.FieldErrors
	if errors.As(o.Validate(), &l) {
		all = append(all, l...)
	}
	if old != nil {
		l = nil
		if errors.As(o.ValidateUpdate(old), &l) {
			all = append(all, l...)
		}
		if added := addedFinalizer(o, old); added != "" {
			all = append(all, v1alpha1.FieldError{
				Type: v1alpha1.ErrorForbidden, Path: "metadata.finalizers",
				Reason: "no new finalizer can be added while the object is being deleted: " + added,
			})
		}
	}
	if len(all) == 0 {
		return nil
	}
	return Invalid(v1alpha1.KindOf(o), o.GetName(), all)
}

func addedFinalizer(o, old v1alpha1.Object) string {
	if old.GetDeletionTimestamp() == nil {
		return ""
	}
	had := make(map[string]bool)
	for _, f := range old.GetFinalizers() {
		had[f] = true
	}
	for _, f := range o.GetFinalizers() {
		if !had[f] {
			return f
		}
	}
	return ""
}

// CheckPreconditions is a conflict unless pre holds for o.
func CheckPreconditions(o v1alpha1.Object, pre Preconditions) error {
	k := v1alpha1.KindOf(o)
	switch {
	case pre.UID != "" && types.UID(pre.UID) != o.GetUID():
		return Conflict(k, o.GetName(), fmt.Sprintf("the UID in the precondition (%s) is not that of the object (%s)", pre.UID, o.GetUID()))
	case pre.ResourceVersion != "" && pre.ResourceVersion != o.GetResourceVersion():
		return Conflict(k, o.GetName(), fmt.Sprintf("the resource version in the precondition (%s) is not that of the object (%s)", pre.ResourceVersion, o.GetResourceVersion()))
	}
	return nil
}

// BrokenObject is an object that is stored and cannot be read: its text was cut
// short, or edited by hand into something that is not valid.
type BrokenObject struct {
	Key   Key
	Place string // the path of the file
	Line  int    // from 1; 0 when not known
	Err   error  // *v1alpha1.SyntaxError, v1alpha1.FieldErrors, or from the file system
}

// Error begins as compilers do, with file:line, so that editors can jump there.
func (e *BrokenObject) Error() string {
	reason := e.Err.Error()
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.Place, reason)
	}
	var syntax *v1alpha1.SyntaxError
	if errors.As(e.Err, &syntax) {
		reason = syntax.Reason
	}
	return fmt.Sprintf("%s:%d: %s", e.Place, e.Line, reason)
}

func (e *BrokenObject) Unwrap() error { return e.Err }

// BrokenObjects comes with the objects that could be read.
type BrokenObjects []*BrokenObject

// Error has a line for each.
func (l BrokenObjects) Error() string {
	s := make([]string, len(l))
	for i, e := range l {
		s[i] = e.Error()
	}
	return strings.Join(s, "\n")
}

func (l BrokenObjects) Unwrap() []error {
	s := make([]error, len(l))
	for i, e := range l {
		s[i] = e
	}
	return s
}
