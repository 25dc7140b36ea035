// SPDX-License-Identifier: Apache-2.0

package served

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/kbcli/kbcli/engine/blob"
)

// faultHeader names what went wrong, in a word of faults.
const faultHeader = "Kbcli-Fault"

// faultOther is what has no word of its own: no retry mends it.
const faultOther = "other"

// faults are the errors of blob that arrive as they left.
var faults = []struct {
	word   string
	err    error
	status int
}{
	{"not-exist", blob.ErrNotExist, http.StatusNotFound},
	{"exist", blob.ErrExist, http.StatusPreconditionFailed},
	{"denied", blob.ErrDenied, http.StatusForbidden},
	{"no-space", blob.ErrNoSpace, http.StatusInsufficientStorage},
	{"no-bucket", blob.ErrNoBucket, http.StatusServiceUnavailable},
	{"unreachable", blob.ErrUnreachable, http.StatusServiceUnavailable},
}

// faultOf is the word and the status of an error of the place.
func faultOf(err error) (word string, status int) {
	for _, f := range faults {
		if errors.Is(err, f.err) {
			return f.word, f.status
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "unreachable", http.StatusServiceUnavailable // of the connection, not of the place
	}
	return faultOther, http.StatusInternalServerError
}

// faultIn is the error that a word stands for, in the server's words.
func faultIn(word, words string) error {
	for _, f := range faults {
		if f.word != word {
			continue
		}
		if words = strings.TrimSpace(words); words == f.err.Error() || words == "" {
			return f.err
		}
		return &fault{words: words, is: f.err}
	}
	return &fault{words: words}
}

// fault is an error of the place behind a server, which says what it was about itself.
type fault struct {
	words string
	is    error
}

func (e *fault) Error() string { return e.words }
func (e *fault) Unwrap() error { return e.is }

// longestFault is how much of an answer that says what went wrong is read.
const longestFault = 4 << 10

// refused is what an answer that is no success means.
func refused(r *http.Response) error {
	words, err := io.ReadAll(io.LimitReader(r.Body, longestFault))
	if err != nil {
		words = []byte(r.Status)
	}
	if word := r.Header.Get(faultHeader); word != "" {
		return faultIn(word, string(words))
	}
	if r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden {
		return fmt.Errorf("%w: the server answers %s", blob.ErrDenied, r.Status)
	}
	return fmt.Errorf("%w: the server answers %s", blob.ErrUnreachable, r.Status)
}

// failed is what a request means that got no answer.
func failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errOtherServer) {
		return fmt.Errorf("%w: %w", blob.ErrDenied, err)
	}
	return fmt.Errorf("%w: %w", blob.ErrUnreachable, err)
}
