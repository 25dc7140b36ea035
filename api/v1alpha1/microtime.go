// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"time"
)

// MicroTime is an instant to the microsecond, PostgreSQL's own grain. It is
// written in UTC with exactly six digits of fraction, so that texts sort as
// instants do: 2023-04-17T11:56:40.000000Z.
//
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:Format=date-time
// +kubebuilder:object:generate=false
type MicroTime struct {
	time.Time `json:"-"`
}

const microLayout = "2006-01-02T15:04:05.000000Z"

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)

// MicroTimeOf is t in UTC, cut to microseconds towards the past.
func MicroTimeOf(t time.Time) MicroTime {
	if t.IsZero() {
		return MicroTime{}
	}
	return MicroTime{t.UTC().Truncate(time.Microsecond)}
}

// ParseMicroTime reads RFC 3339 with any zone and any fraction, which is cut as
// MicroTimeOf cuts it.
func ParseMicroTime(s string) (MicroTime, error) {
	// time.Parse alone forgives one-digit hours and a comma.
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || !rfc3339.MatchString(s) {
		return MicroTime{}, fmt.Errorf("%q is not a time such as 2023-04-17T11:56:40.000000Z", s)
	}
	m := MicroTimeOf(t)
	if y := m.Year(); y < 1 || y > 9999 {
		return MicroTime{}, fmt.Errorf("%q is not in the years 1 to 9999", s)
	}
	return m, nil
}

// String is the form described at the type; the zero value is "".
func (t MicroTime) String() string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(microLayout)
}

// MarshalJSON writes String, or null for the zero value.
func (t MicroTime) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return nil, fmt.Errorf("year %d has no RFC 3339 form", y)
	}
	return json.Marshal(t.String())
}

// UnmarshalJSON reads what ParseMicroTime reads; null is the zero value.
func (t *MicroTime) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		*t = MicroTime{}
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is not a time such as 2023-04-17T11:56:40.000000Z", b)
	}
	m, err := ParseMicroTime(s)
	if err != nil {
		return err
	}
	*t = m
	return nil
}

// DeepCopyInto makes *out the same instant.
func (t *MicroTime) DeepCopyInto(out *MicroTime) { *out = *t }

// DeepCopy is a copy of t, nil of nil.
func (t *MicroTime) DeepCopy() *MicroTime {
	if t == nil {
		return nil
	}
	c := *t
	return &c
}

// MarshalText writes String.
func (t MicroTime) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what String writes, and whatever ParseMicroTime reads.
func (t *MicroTime) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*t = MicroTime{}
		return nil
	}
	m, err := ParseMicroTime(string(b))
	if err != nil {
		return err
	}
	*t = m
	return nil
}

// OpenAPISchemaType is for the generator of custom resource definitions.
func (MicroTime) OpenAPISchemaType() []string { return []string{"string"} }

// OpenAPISchemaFormat is for the generator of custom resource definitions.
func (MicroTime) OpenAPISchemaFormat() string { return "date-time" }
