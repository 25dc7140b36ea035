// SPDX-License-Identifier: Apache-2.0

package replication

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/kbcli/kbcli/engine/pg"
)

// What a server can say about a slot, and about itself.
var (
	ErrSlotNotFound    = errors.New("replication slot does not exist")
	ErrSlotExists      = errors.New("replication slot exists already")
	ErrSlotActive      = errors.New("replication slot is in use by another connection")
	ErrSlotInvalidated = errors.New("replication slot was invalidated")

	// ErrServerStopping ends a stream whose server has shut down in order, after
	// it sent all its WAL. The connection is gone.
	ErrServerStopping = errors.New("server is shutting down")

	// ErrStreamEnded is Status's answer after the end of a stream.
	ErrStreamEnded = errors.New("stream has ended")
)

// SegmentRemovedError says that the server has no longer the WAL that was asked
// for. It must come from elsewhere: an archive, or another server's pg_wal.
type SegmentRemovedError struct {
	Segment string // its name, empty if the server's message has none
	Err     error
}

func (e *SegmentRemovedError) Error() string {
	return fmt.Sprintf("server has removed WAL segment %s: %v", e.Segment, e.Err)
}

func (e *SegmentRemovedError) Unwrap() error { return e.Err }

// NotInHistoryError says that the server's past does not hold what was asked
// for: it never was on the timeline, or left it before the position.
type NotInHistoryError struct {
	Timeline pg.TimelineID
	LSN      pg.LSN // 0 when a history file was asked for
	Err      error
}

func (e *NotInHistoryError) Error() string {
	return fmt.Sprintf("timeline %d at %s is not in the server's history: %v", e.Timeline, e.LSN, e.Err)
}

func (e *NotInHistoryError) Unwrap() error { return e.Err }

// AheadError says that the server has not written the position that was asked
// for: it lags behind the one that did, or has lost what that one had.
type AheadError struct {
	LSN pg.LSN
	Err error
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("server has not reached %s: %v", e.LSN, e.Err)
}

func (e *AheadError) Unwrap() error { return e.Err }

// SQLSTATEs that walsender gives a meaning of their own.
const (
	stateUndefinedFile   = "58P01"
	stateUndefinedObject = "42704"
	stateDuplicateObject = "42710"
	stateInUse           = "55006"
	stateNotReady        = "55000"
	stateInternal        = "XX000"
	stateNoPrivilege     = "42501"
)

var (
	segmentName = regexp.MustCompile(`\b[0-9A-F]{24}\b`)
	position    = regexp.MustCompile(`\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b`)
)

// classify turns a server's error into one of this package's. Messages are
// translated, so it goes by SQLSTATE, by the C function that raised the error,
// and by names and positions in the text, which no translation changes.
func classify(e *pgconn.PgError, asked StartOptions) error {
	switch e.Code {
	case stateUndefinedObject:
		return fmt.Errorf("%w: %w", ErrSlotNotFound, e)
	case stateDuplicateObject:
		return fmt.Errorf("%w: %w", ErrSlotExists, e)
	case stateInUse:
		return fmt.Errorf("%w: %w", ErrSlotActive, e)
	case stateNotReady:
		if e.Routine == "ReplicationSlotAcquire" {
			return fmt.Errorf("%w: %w", ErrSlotInvalidated, e)
		}
	case stateUndefinedFile:
		if asked.LSN != 0 {
			return &SegmentRemovedError{Segment: segmentName.FindString(e.Message), Err: e}
		}
		if asked.Timeline != 0 {
			return &NotInHistoryError{Timeline: asked.Timeline, Err: e}
		}
	case stateInternal:
		if asked.LSN == 0 {
			break
		}
		// Ahead of the flush position names two positions; not in the history
		// names one in the message and the fork in the detail.
		inHistory := e.Routine == "StartReplication" || e.Routine == "tliSwitchPoint" || e.Routine == "tliOfPointInHistory"
		switch found := len(position.FindAllString(e.Message, -1)); {
		case e.Routine == "StartReplication" && found == 2:
			return &AheadError{LSN: asked.LSN, Err: e}
		case inHistory:
			return &NotInHistoryError{Timeline: asked.Timeline, LSN: asked.LSN, Err: e}
		}
	}
	return e
}

// serverError reads an ErrorResponse.
func serverError(body []byte) (*pgconn.PgError, error) {
	var r pgproto3.ErrorResponse
	if err := r.Decode(body); err != nil {
		return nil, errMalformed
	}
	return pgconn.ErrorResponseToPgError(&r), nil
}
