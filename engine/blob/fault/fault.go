// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
)

// Rule says which calls go wrong, and how. The zero value of each condition
// holds for every call.
type Rule struct {
	Verb   blob.Verb // this verb only
	Key    string    // keys that contain this; for List the prefix
	Nth    int       // only the nth call that meets Verb and Key, from 1
	Times  int       // at most so many times
	Chance float64   // with this probability
	Action Action
}

// Action is what goes wrong.
type Action struct {
	kind  kind
	err   error
	n     int64
	delay time.Duration
}

type kind int

const (
	none kind = iota
	fail
	failAfter
	cut
	flip
	delay
)

// Fail makes the call fail without doing it. A nil err is blob.ErrUnreachable.
func Fail(err error) Action { return Action{kind: fail, err: err} }

// FailAfter does what was called for, throws the result away and says err: a
// lost answer. A nil err is blob.ErrUnreachable.
func FailAfter(err error) Action { return Action{kind: failAfter, err: err} }

// Cut breaks the body of a Get after n bytes, and a List after n objects, with
// blob.ErrUnreachable. What has no more than n ends as it would have. Other
// verbs fail as with Fail.
func Cut(n int64) Action { return Action{kind: cut, n: n} }

// Flip turns over one bit in what a Get returns: bit counts from the first byte
// returned, the lowest bit of each byte first. Other verbs are not touched.
func Flip(bit int64) Action { return Action{kind: flip, n: bit} }

// Delay waits, or until the context ends, before the call goes on.
func Delay(d time.Duration) Action { return Action{kind: delay, delay: d} }

// Event is a fault that happened.
type Event struct {
	Verb blob.Verb
	Key  string
	Rule int // its place among the rules, from 0
}

// Store fails on purpose.
type Store struct {
	inner blob.Store

	mu     sync.Mutex
	rand   *rand.Rand
	rules  []*state
	events []Event
}

type state struct {
	Rule
	seen, fired int
}

// New wraps s. The seed matters only for rules with a Chance.
func New(s blob.Store, seed uint64, rules ...Rule) *Store {
	f := &Store{inner: s, rand: rand.New(rand.NewPCG(seed, seed))}
	f.Set(rules...)
	return f
}

// Set replaces the rules, from the next call on. Without any nothing fails.
func (f *Store) Set(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
	for _, r := range rules {
		f.rules = append(f.rules, &state{Rule: r})
	}
}

// Events are the faults that happened, oldest first.
func (f *Store) Events() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Event(nil), f.events...)
}

func (f *Store) String() string { return f.inner.String() }

// plan picks what goes wrong with a call and waits as it says.
func (f *Store) plan(ctx context.Context, verb blob.Verb, key string) (Action, error) {
	action, wait := f.pick(verb, key)
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return Action{}, fmt.Errorf("%s %s: %w", verb, key, ctx.Err())
		}
	}
	if action.err == nil {
		action.err = blob.ErrUnreachable
	}
	action.err = fmt.Errorf("%s %s: planned fault: %w", verb, key, action.err)
	if action.kind == fail || (action.kind == cut && verb != blob.VerbGet && verb != blob.VerbList) {
		return Action{}, action.err
	}
	return action, nil
}

func (f *Store) pick(verb blob.Verb, key string) (Action, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var chosen Action
	var wait time.Duration
	for i, r := range f.rules {
		if (r.Verb != "" && r.Verb != verb) || !strings.Contains(key, r.Key) {
			continue
		}
		r.seen++ // even if an earlier rule decides: Nth counts calls
		switch {
		case chosen.kind != none,
			r.Nth > 0 && r.seen != r.Nth,
			r.Times > 0 && r.fired >= r.Times,
			r.Chance > 0 && f.rand.Float64() >= r.Chance:
			continue
		}
		r.fired++
		f.events = append(f.events, Event{Verb: verb, Key: key, Rule: i})
		if r.Action.kind == delay {
			wait += r.Action.delay
		} else {
			chosen = r.Action
		}
	}
	return chosen, wait
}

// around does a call that has no body to tamper with.
func (f *Store) around(ctx context.Context, verb blob.Verb, key string, do func() error) error {
	a, err := f.plan(ctx, verb, key)
	if err != nil {
		return err
	}
	err = do()
	if a.kind == failAfter {
		return a.err
	}
	return err
}

// Put implements blob.Store.
func (f *Store) Put(ctx context.Context, key string, body blob.Body) error {
	return f.around(ctx, blob.VerbPut, key, func() error { return f.inner.Put(ctx, key, body) })
}

// Replace implements blob.Store.
func (f *Store) Replace(ctx context.Context, key string, body blob.Body) error {
	return f.around(ctx, blob.VerbReplace, key, func() error { return f.inner.Replace(ctx, key, body) })
}

// Delete implements blob.Store.
func (f *Store) Delete(ctx context.Context, key string) error {
	return f.around(ctx, blob.VerbDelete, key, func() error { return f.inner.Delete(ctx, key) })
}

// Stat implements blob.Reader.
func (f *Store) Stat(ctx context.Context, key string) (info blob.Info, err error) {
	err = f.around(ctx, blob.VerbStat, key, func() error {
		info, err = f.inner.Stat(ctx, key)
		return err
	})
	if err != nil {
		return blob.Info{}, err
	}
	return info, nil
}

// List implements blob.Lister.
func (f *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return f.ListAfter(ctx, prefix, "")
}

// ListAfter implements blob.Lister.
func (f *Store) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		a, err := f.plan(ctx, blob.VerbList, prefix)
		if err != nil {
			yield(blob.Info{}, err)
			return
		}
		if a.kind == failAfter {
			a.kind, a.n = cut, 0
		}
		n := int64(0)
		for info, err := range f.inner.ListAfter(ctx, prefix, after) {
			if a.kind == cut && n == a.n {
				yield(blob.Info{}, a.err)
				return
			}
			n++
			if !yield(info, err) {
				return
			}
		}
	}
}

// Get implements blob.Reader.
func (f *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	a, err := f.plan(ctx, blob.VerbGet, key)
	if err != nil {
		return nil, err
	}
	rc, err := f.inner.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	if a.kind == failAfter {
		rc.Close()
		return nil, a.err
	}
	return &body{ReadCloser: rc, action: a}, nil
}

// body tampers with what Get returned.
type body struct {
	io.ReadCloser
	action Action
	at     int64
}

func (b *body) Version() string {
	if v, ok := b.ReadCloser.(blob.Versioned); ok {
		return v.Version()
	}
	return ""
}

func (b *body) Read(p []byte) (int, error) {
	if b.action.kind == cut {
		if b.at == b.action.n {
			// Is there anything to cut off?
			n, err := io.ReadFull(b.ReadCloser, make([]byte, 1))
			if n == 0 {
				return 0, err
			}
			return 0, b.action.err
		}
		p = p[:min(int64(len(p)), b.action.n-b.at)]
	}
	n, err := b.ReadCloser.Read(p)
	if at := b.action.n/8 - b.at; b.action.kind == flip && at >= 0 && at < int64(n) {
		p[at] ^= 1 << (b.action.n % 8)
	}
	b.at += int64(n)
	return n, err
}
