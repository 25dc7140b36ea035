// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

// Command is what the kbcli in a pod is called with, to read a question from stdin.
var Command = []string{"kbcli", "answer"}

// Topic is what is asked for.
type Topic string

// What can be asked.
const (
	Plan    Topic = "plan"
	Windows Topic = "windows"
	Clock   Topic = "clock"
)

// Question is one.
type Question struct {
	Topic  Topic           `json:"topic"`
	Source runtimes.Source `json:"source"`
	Target catalog.Target  `json:"target,omitzero"` // of Plan
}

// Answer has what the topic asks for, or Fault.
type Answer struct {
	Plan    *restore.Plan    `json:"plan,omitempty"`
	Windows []catalog.Window `json:"windows,omitempty"`
	Now     time.Time        `json:"now,omitzero"`
	Fault   *Fault           `json:"fault,omitempty"`
}

// Answerer knows; every runtimes.Runtime beside a repository does.
type Answerer interface {
	Plan(ctx context.Context, src runtimes.Source, t catalog.Target) (*restore.Plan, error)
	Windows(ctx context.Context, src runtimes.Source) ([]catalog.Window, error)
	Clock(ctx context.Context, src runtimes.Source) (time.Time, error)
}

// longest is how much of a question or an answer is read.
const longest = 16 << 20

// Serve reads one question from in and writes the answer to out. An error of the answer
// is part of it: Serve returns its own alone.
func Serve(ctx context.Context, a Answerer, in io.Reader, out io.Writer) error {
	var q Question
	if err := json.NewDecoder(io.LimitReader(in, longest)).Decode(&q); err != nil {
		return fmt.Errorf("read the question: %w", err)
	}
	var answer Answer
	var err error
	switch q.Topic {
	case Plan:
		answer.Plan, err = a.Plan(ctx, q.Source, q.Target)
	case Windows:
		answer.Windows, err = a.Windows(ctx, q.Source)
	case Clock:
		answer.Now, err = a.Clock(ctx, q.Source)
	default:
		err = fmt.Errorf("this release does not know the question %q", q.Topic)
	}
	if err != nil {
		answer = Answer{Fault: faultOf(err)}
	}
	if err := json.NewEncoder(out).Encode(answer); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// Read is the answer in text. Its fault becomes the error.
func Read(text []byte) (Answer, error) {
	var a Answer
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("read the answer: %w", err)
	}
	if a.Fault != nil {
		return a, a.Fault.err()
	}
	return a, nil
}

// Fault is an error on its way.
type Fault struct {
	Kind  string          `json:"kind,omitempty"` // empty: the words are all there is
	Words string          `json:"words"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// faults are the kinds of errors that arrive as they left.
var faults = []fault{
	faultFor[*catalog.OutsideWindowError]("OutsideWindow"),
	faultFor[*catalog.GapError]("Gap"),
	faultFor[*catalog.NoBackupError]("NoBackup"),
	faultFor[*catalog.NoTimelineError]("NoTimeline"),
	faultFor[*catalog.PositionError]("Position"),
	faultFor[*catalog.TransactionError]("Transaction"),
	faultFor[*catalog.NoRestorePointError]("NoRestorePoint"),
	faultFor[*restore.TablespaceMadeError]("TablespaceMade"),
	faultFor[*runtimes.SourceNotFoundError]("SourceNotFound"),
}

type fault struct {
	kind string
	pack func(err error) (json.RawMessage, bool)
	open func(json.RawMessage) (error, bool)
}

func faultFor[T error](kind string) fault {
	return fault{
		kind: kind,
		pack: func(err error) (json.RawMessage, bool) {
			var e T
			if !errors.As(err, &e) {
				return nil, false
			}
			b, err := json.Marshal(e)
			return b, err == nil
		},
		open: func(b json.RawMessage) (error, bool) {
			var e T
			err := json.Unmarshal(b, &e)
			return e, err == nil
		},
	}
}

func faultOf(err error) *Fault {
	for _, f := range faults {
		if data, ok := f.pack(err); ok {
			return &Fault{Kind: f.kind, Words: err.Error(), Data: data}
		}
	}
	return &Fault{Words: err.Error()}
}

func (f *Fault) err() error {
	for _, k := range faults {
		if k.kind != f.Kind {
			continue
		}
		if err, ok := k.open(f.Data); ok {
			return err
		}
	}
	return errors.New(f.Words)
}
