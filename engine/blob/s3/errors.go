// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/kbcli/kbcli/engine/blob"
)

// codes are the words of servers that say what the status does not.
var codes = map[string]error{
	"NoSuchKey":    blob.ErrNotExist,
	"NoSuchBucket": blob.ErrNoBucket,

	"AccessDenied":                 blob.ErrDenied,
	"AllAccessDisabled":            blob.ErrDenied,
	"AccountProblem":               blob.ErrDenied,
	"InvalidAccessKeyId":           blob.ErrDenied,
	"XAdminUserNotFound":           blob.ErrDenied, // versitygw's word for it, as HTTP 404
	"SignatureDoesNotMatch":        blob.ErrDenied,
	"ExpiredToken":                 blob.ErrDenied,
	"InvalidToken":                 blob.ErrDenied,
	"RequestTimeTooSkewed":         blob.ErrDenied,
	"AuthorizationHeaderMalformed": blob.ErrDenied, // signed for another region

	"QuotaExceeded":                  blob.ErrNoSpace,
	"NoSpaceLeftOnDevice":            blob.ErrNoSpace,
	"InsufficientStorage":            blob.ErrNoSpace,
	"XMinioStorageFull":              blob.ErrNoSpace,
	"XMinioAdminBucketQuotaExceeded": blob.ErrNoSpace,

	"SlowDown":            blob.ErrUnreachable,
	"Throttling":          blob.ErrUnreachable,
	"ThrottlingException": blob.ErrUnreachable,
	"RequestTimeout":      blob.ErrUnreachable,
	"OperationAborted":    blob.ErrUnreachable,
	// Two conditional PUTs at once; the one that is told so shall try again.
	"ConditionalRequestConflict": blob.ErrUnreachable,
	// Damaged or cut on the way, and refused for it.
	"BadDigest":                   blob.ErrUnreachable,
	"IncompleteBody":              blob.ErrUnreachable,
	"XAmzContentSHA256Mismatch":   blob.ErrUnreachable,
	"XAmzContentChecksumMismatch": blob.ErrUnreachable,
}

var errHungUp = errors.New("the server closed the connection without an answer")

// kindOf is the sentinel for an answer of the server, or nil if none says it.
func kindOf(r minio.ErrorResponse) error {
	if kind, ok := codes[r.Code]; ok {
		return kind
	}
	switch s := r.StatusCode; {
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		return blob.ErrDenied
	case s == http.StatusInsufficientStorage:
		return blob.ErrNoSpace
	case s == http.StatusNotImplemented, s == http.StatusHTTPVersionNotSupported:
		return nil
	case s >= 500, s == http.StatusTooManyRequests, s == http.StatusRequestTimeout, s == 499:
		return blob.ErrUnreachable
	}
	return nil
}

// classify wraps what a request came back with in the sentinel that says what it
// means, and keeps the server's own words. Errors that are no answers are those
// of the network, of TLS or of a body, all of which a later try may mend.
func classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		// Why a request failed that nobody waits for is of no interest.
		return ctx.Err()
	}
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		// The URL would be most of the message, and tells nothing new.
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		if strings.HasPrefix(err.Error(), "Connection closed by foreign host") {
			err = errHungUp
		}
		return fmt.Errorf("%w: %w", blob.ErrUnreachable, err)
	}
	words := answer{r}
	if kind := kindOf(r); kind != nil {
		return fmt.Errorf("%w: %w", kind, words)
	}
	return words
}

// answer is what a server said: its code, its words, and the number under which
// its operator finds the request.
type answer struct{ minio.ErrorResponse }

func (a answer) Unwrap() error { return a.ErrorResponse }

func (a answer) Error() string {
	s := a.Code
	if words := a.ErrorResponse.Error(); words != "" && words != s {
		if s != "" {
			s += ": "
		}
		s += words
	}
	if a.StatusCode != 0 {
		s += fmt.Sprintf(" (HTTP %d", a.StatusCode)
		if a.RequestID != "" {
			s += ", request " + a.RequestID
		}
		s += ")"
	}
	return s
}

func statusOf(err error) int {
	var r minio.ErrorResponse
	if errors.As(err, &r) {
		return r.StatusCode
	}
	return 0
}

func codeOf(err error) string {
	var r minio.ErrorResponse
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}
