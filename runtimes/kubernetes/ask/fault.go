// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/repos"
)

// UnknownTopicError says that this release does not know a question.
type UnknownTopicError struct{ Topic Topic }

func (e *UnknownTopicError) Error() string {
	return fmt.Sprintf("this release does not know the question %q", e.Topic)
}

// Read is a line of an answer. Its fault becomes the error.
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
	faultFor[*repos.NotGivenError]("NotGiven"),
	faultFor[*UnknownTopicError]("UnknownTopic"),
	faultFor[*repository.LockedError]("Locked"),
	faultFor[*repository.MissingWALError]("MissingWAL"),
	damagedFault,
	statusFault,
	sentinel("NoRepository", repository.ErrNoRepository),
	sentinel("Sealed", repository.ErrSealed),
	sentinel("StorageDenied", blob.ErrDenied),
	sentinel("NoBucket", blob.ErrNoBucket),
	sentinel("StorageUnreachable", blob.ErrUnreachable),
}

// damage is a *restore.DamagedError on its way: of each thing that is damaged the words.
type damage struct {
	Backup string   `json:"backup"`
	Words  []string `json:"words"`
}

var damagedFault = fault{
	kind: "Damaged",
	pack: func(err error) (json.RawMessage, bool) {
		var e *restore.DamagedError
		if !errors.As(err, &e) {
			return nil, false
		}
		d := damage{Backup: e.Backup}
		for _, x := range e.Damage {
			d.Words = append(d.Words, x.Error())
		}
		b, err := json.Marshal(d)
		return b, err == nil
	},
	open: func(b json.RawMessage, _ string) (error, bool) {
		var d damage
		err := json.Unmarshal(b, &d)
		e := &restore.DamagedError{Backup: d.Backup}
		for _, w := range d.Words {
			e.Damage = append(e.Damage, errors.New(w))
		}
		return e, err == nil
	},
}

// statusFault is what the API server, or a store, has said to the far side.
var statusFault = fault{
	kind: "Status",
	pack: func(err error) (json.RawMessage, bool) {
		status := apierrors.APIStatus(nil)
		if !errors.As(err, &status) {
			return nil, false
		}
		b, err := json.Marshal(status.Status())
		return b, err == nil
	},
	open: func(b json.RawMessage, _ string) (error, bool) {
		var s metav1.Status
		err := json.Unmarshal(b, &s)
		return &apierrors.StatusError{ErrStatus: s}, err == nil
	},
}

// told is an error that was one of a kind, with all its words.
type told struct {
	words string
	kind  error
}

func (e *told) Error() string { return e.words }
func (e *told) Unwrap() error { return e.kind }

// sentinel is the fault of a value.
func sentinel(kind string, value error) fault {
	return fault{
		kind: kind,
		pack: func(err error) (json.RawMessage, bool) { return nil, errors.Is(err, value) },
		open: func(_ json.RawMessage, words string) (error, bool) { return &told{words, value}, true },
	}
}

type fault struct {
	kind string
	pack func(err error) (json.RawMessage, bool)
	open func(data json.RawMessage, words string) (error, bool)
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
		open: func(b json.RawMessage, _ string) (error, bool) {
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
		if err, ok := k.open(f.Data, f.Words); ok {
			return err
		}
	}
	if strings.HasPrefix(f.Words, "this release does not know the question ") {
		return &UnknownTopicError{} // as it was said before it was a kind
	}
	return errors.New(f.Words)
}
