// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// Secret is a text that prints as REDACTED, however it is printed, logged or
// encoded; an empty one, the zero value, prints as nothing. It can be read from
// JSON and other text, but what it is written as cannot be read back.
//
// The text is behind a pointer because fmt calls no method of what is in an
// unexported field of another struct, and would print a string. So secrets are
// compared with Equal.
type Secret struct{ text *string }

const redacted = "REDACTED"

// NewSecret hides a text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal is the text itself.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero says that there is no text.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal says that both have the same text.
func (s Secret) Equal(t Secret) bool { return s.Reveal() == t.Reveal() }

func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return fmt.Sprintf("s3.NewSecret(%q)", s.String()) }

// Format implements fmt.Formatter, for the verbs that would not call String.
func (s Secret) Format(f fmt.State, verb rune) {
	switch {
	case verb == 'v' && f.Flag('#'):
		io.WriteString(f, s.GoString())
	case verb == 'q':
		fmt.Fprintf(f, "%q", s.String())
	default:
		io.WriteString(f, s.String())
	}
}

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
