// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
	"strings"
)

// ErrorType says what is wrong with a field.
type ErrorType string

// What can be wrong with a field.
const (
	ErrorInvalid   ErrorType = "Invalid"   // the value cannot be
	ErrorRequired  ErrorType = "Required"  // there is no value
	ErrorForbidden ErrorType = "Forbidden" // there must be no value, or not a new one
	ErrorUnknown   ErrorType = "Unknown"   // there is no such field
	ErrorDuplicate ErrorType = "Duplicate" // the field is there twice
)

// FieldError is one thing wrong in one field.
//
// +kubebuilder:object:generate=false
type FieldError struct {
	Type   ErrorType
	Path   string // "spec.retention.ttl"
	Value  string // as it was given; empty when there was none or when it must not be shown
	Reason string // reads on after the value: "is not a number of days"
	Line   int    // of the text it was decoded from, from 1; 0 when not known
}

// Error is one line that names the field, the value and the reason. It leaves
// the line out, which means nothing to somebody who typed no file.
func (e FieldError) Error() string {
	switch {
	case e.Type == ErrorUnknown && e.Reason == "":
		return fmt.Sprintf("unknown field %q", e.Path)
	case e.Type == ErrorUnknown:
		return fmt.Sprintf("unknown field %q (%s)", e.Path, e.Reason)
	case e.Type == ErrorDuplicate:
		return fmt.Sprintf("field %q is given twice", e.Path)
	case e.Path == "":
		return e.Reason
	case e.Value == "":
		return fmt.Sprintf("%s: %s", e.Path, e.Reason)
	}
	return fmt.Sprintf("%s: %q %s", e.Path, e.Value, e.Reason)
}

// FieldErrors is everything wrong with one object, in the order of its fields.
// As an error it is never empty.
//
// +kubebuilder:object:generate=false
type FieldErrors []FieldError

func (l FieldErrors) Error() string {
	s := make([]string, len(l))
	for i, e := range l {
		s[i] = e.Error()
	}
	return strings.Join(s, "; ")
}

// Unwrap gives errors.As each FieldError.
func (l FieldErrors) Unwrap() []error {
	s := make([]error, len(l))
	for i, e := range l {
		s[i] = e
	}
	return s
}

// SyntaxError says that the text is not one YAML document.
//
// +kubebuilder:object:generate=false
type SyntaxError struct {
	Line   int // from 1; 0 when not known
	Reason string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.Reason
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
}

// orNil keeps an empty list from becoming a non-nil error.
func (l FieldErrors) orNil() error {
	if len(l) == 0 {
		return nil
	}
	return l
}

func (l *FieldErrors) invalid(path, value, reason string) {
	*l = append(*l, FieldError{Type: ErrorInvalid, Path: path, Value: value, Reason: reason})
}

func (l *FieldErrors) required(path string) {
	*l = append(*l, FieldError{Type: ErrorRequired, Path: path, Reason: "must be given"})
}

func (l *FieldErrors) forbidden(path, reason string) {
	*l = append(*l, FieldError{Type: ErrorForbidden, Path: path, Reason: reason})
}

// immutable refuses a change of a field that stays what it was.
func immutable[T comparable](l *FieldErrors, path string, was, is T) {
	if was != is {
		l.forbidden(path, fmt.Sprintf("cannot be changed, it is %q", fmt.Sprint(was)))
	}
}
