// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

// Command is what the kbcli in a pod is called with, to read a question from stdin.
var Command = []string{"kbcli", "answer"}

// Topic is what is asked for.
type Topic string

// What can be asked.
const (
	Plan     Topic = "plan"
	Windows  Topic = "windows"
	Clock    Topic = "clock"
	History  Topic = "history"  // in parts: events
	Follow   Topic = "follow"   // in parts, without end: events, and how far it came
	Lineages Topic = "lineages" // that there are under a name
	Verify   Topic = "verify"   // in parts: how far it is
	Expiry   Topic = "expiry"   // the plan of the default policy
	Examine  Topic = "examine"  // of a cluster by its pod; without a cluster of all repositories
)

// Question is one.
type Question struct {
	Topic  Topic           `json:"topic"`
	Source runtimes.Source `json:"source"`
	Target catalog.Target  `json:"target,omitzero"` // of Plan
	// History is of History and Follow. How far a Follow has come is in its Going.
	History *catalog.HistoryQuery `json:"history,omitempty"`
	Backup  string                `json:"backup,omitempty"` // of Verify
	Policy  string                `json:"policy,omitempty"` // of Expiry
	// Held says that whoever asks keeps stdin open for as long as they want the answer, and
	// writes a line at least every Beat.
	Held bool `json:"held,omitempty"`
}

// Beat is how often somebody who waits for an answer says that they are still there, and
// patience how long it is believed.
const (
	Beat     = 10 * time.Second
	patience = 6 * Beat
)

// Answer has what the topic asks for, or Fault. One in parts is several, a line each: all
// but the last have More.
type Answer struct {
	Release string `json:"release,omitempty"` // of the kbcli that answers
	More    bool   `json:"more,omitempty"`

	Plan     *restore.Plan            `json:"plan,omitempty"`
	Windows  []catalog.Window         `json:"windows,omitempty"`
	Now      time.Time                `json:"now,omitzero"`
	Events   []runtimes.HistoryEvent  `json:"events,omitempty"`
	Going    *catalog.Going           `json:"going,omitempty"` // all before it has been told
	Lineages []repository.LineageInfo `json:"lineages,omitempty"`
	Progress *Progress                `json:"progress,omitempty"`
	Report   *restore.Report          `json:"report,omitempty"`
	Expiry   *runtimes.Expiry         `json:"expiry,omitempty"`
	Examined []runtimes.Examined      `json:"examined,omitempty"`

	Fault *Fault `json:"fault,omitempty"` // beside Lineages that could be found, and beside Report
}

// Progress is how many bytes of a backup were read.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// Answerer knows; every runtimes.Runtime beside a repository does.
type Answerer interface {
	runtimes.HistoryReader
	runtimes.LineageLister
	Plan(ctx context.Context, src runtimes.Source, t catalog.Target) (*restore.Plan, error)
	Windows(ctx context.Context, src runtimes.Source) ([]catalog.Window, error)
	Clock(ctx context.Context, src runtimes.Source) (time.Time, error)
	Verify(ctx context.Context, b *v1alpha1.Backup, progress func(done, total int64)) (*restore.Report, error)
	// Backup is a Backup of the namespace.
	Backup(ctx context.Context, namespace, name string) (*v1alpha1.Backup, error)
	// Expiry is what the policy of that name lets go of its cluster.
	Expiry(ctx context.Context, namespace, policy string) (*runtimes.Expiry, error)
	// Examine looks at the server of this pod, if src names its cluster, or at all
	// repositories.
	Examine(ctx context.Context, src runtimes.Source) ([]runtimes.Examined, error)
}

// longest is how much of a question or of a line of an answer is read.
const longest = 16 << 20

// Serve reads one question from in and writes the answer to out; release is of this
// program. An error of the answer is part of it: Serve returns its own alone. Of a
// question that is held a goroutine reads in until that ends.
func Serve(ctx context.Context, a Answerer, release string, in io.Reader, out io.Writer) error {
	var q Question
	if err := json.NewDecoder(io.LimitReader(in, longest)).Decode(&q); err != nil {
		return fmt.Errorf("read the question: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if q.Held {
		go func() {
			defer cancel()
			whileHeld(ctx, in)
		}()
	}
	s := &serving{a: a, q: q, release: release, out: json.NewEncoder(out)}
	last, err := s.answer(ctx)
	if ctx.Err() != nil {
		return nil // nobody listens any more
	}
	if err != nil {
		last.Fault = faultOf(err)
	}
	last.More = false
	return s.write(last)
}

// whileHeld returns when in ends, or nothing was read from it for long.
func whileHeld(ctx context.Context, in io.Reader) {
	alive := make(chan struct{})
	go func() {
		defer close(alive)
		for b := make([]byte, 64); ; {
			if _, err := in.Read(b); err != nil {
				return
			}
			select {
			case alive <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case _, ok := <-alive:
			if !ok {
				return
			}
		case <-time.After(patience):
			return
		case <-ctx.Done():
			return
		}
	}
}

// serving is an answer on its way.
type serving struct {
	a       Answerer
	q       Question
	release string

	mu  sync.Mutex
	out *json.Encoder
}

func (s *serving) write(a Answer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.Release = s.release
	if err := s.out.Encode(a); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

func (s *serving) part(a Answer) error {
	a.More = true
	return s.write(a)
}

// answer writes all parts but the last, which it returns.
func (s *serving) answer(ctx context.Context) (a Answer, err error) {
	q := &s.q
	switch q.Topic {
	case Plan:
		a.Plan, err = s.a.Plan(ctx, q.Source, q.Target)
		if err != nil {
			a.Plan = nil
		}
	case Windows:
		a.Windows, err = s.a.Windows(ctx, q.Source)
	case Clock:
		a.Now, err = s.a.Clock(ctx, q.Source)
	case History:
		a.Events, err = s.history(ctx)
	case Follow:
		err = s.follow(ctx)
	case Lineages:
		a.Lineages, err = s.a.Lineages(ctx, q.Source.Namespace, q.Source.Cluster)
	case Verify:
		a.Report, err = s.verify(ctx)
	case Expiry:
		if a.Expiry, err = s.a.Expiry(ctx, q.Source.Namespace, q.Policy); err == nil {
			a.Expiry = slim(a.Expiry)
		}
	case Examine:
		a.Examined, err = s.a.Examine(ctx, q.Source)
	default:
		err = &UnknownTopicError{q.Topic}
	}
	return a, err
}

// eventsAtOnce is how many events one line has at most.
const eventsAtOnce = 200

func (s *serving) query() catalog.HistoryQuery {
	if s.q.History == nil {
		return catalog.HistoryQuery{}
	}
	return *s.q.History
}

// history returns those of the last line.
func (s *serving) history(ctx context.Context) ([]runtimes.HistoryEvent, error) {
	var held []runtimes.HistoryEvent
	wrote := time.Now()
	err := s.a.History(ctx, s.q.Source, s.query(), func(e catalog.Event, restorable bool) error {
		held = append(held, runtimes.HistoryEvent{Event: e, Restorable: restorable})
		if len(held) < eventsAtOnce && time.Since(wrote) < time.Second {
			return nil
		}
		err := s.part(Answer{Events: held})
		held, wrote = nil, time.Now()
		return err
	})
	return held, err
}

func (s *serving) follow(ctx context.Context) error {
	query := s.query()
	if query.Going == nil {
		query.Going = &catalog.Going{}
	}
	// how far it came goes with the last of what was found before that: a follower whose
	// pod goes away asks another from there on, and finds every event once
	return s.a.FollowHistory(ctx, s.q.Source, query, func(found []runtimes.HistoryEvent) error {
		for len(found) > eventsAtOnce {
			if err := s.part(Answer{Events: found[:eventsAtOnce]}); err != nil {
				return err
			}
			found = found[eventsAtOnce:]
		}
		return s.part(Answer{Events: found, Going: &catalog.Going{Next: query.Going.Next}})
	}, func() {
		_ = s.part(Answer{Going: &catalog.Going{Next: query.Going.Next}}) // a reader that went away ends it by ctx
	})
}

// progressEvery is how often a verification says how far it is.
const progressEvery = 500 * time.Millisecond

func (s *serving) verify(ctx context.Context) (*restore.Report, error) {
	b, err := s.a.Backup(ctx, s.q.Source.Namespace, s.q.Backup)
	if err != nil {
		return nil, err
	}
	var next time.Time
	return s.a.Verify(ctx, b, func(done, total int64) {
		if now := time.Now(); now.After(next) {
			next = now.Add(progressEvery)
			_ = s.part(Answer{Progress: &Progress{done, total}}) // the report has the error
		}
	})
}

// slim is a plan without what only whoever carries it out needs.
func slim(e *runtimes.Expiry) *runtimes.Expiry {
	out := *e
	out.Input.Tails, out.Input.Keep, out.Input.Absent, out.Input.Paths, out.Input.Indexed = nil, nil, nil, nil, nil
	return &out
}
