// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/blob/mem"
)

const ttl = 10 * time.Second

func contend(t *testing.T, r *Repository, work time.Duration) {
	var inside, held atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 3 {
				l, err := r.Lock(t.Context(), "x", fmt.Sprint("goroutine ", i), ttl, time.Hour)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold it", n)
				}
				held.Add(1)
				select {
				case <-time.After(work):
				case <-l.Context().Done():
					t.Error(context.Cause(l.Context()))
				}
				inside.Add(-1)
				if err := l.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if held.Load() != 24 {
		t.Errorf("held %d times", held.Load())
	}
	gens, err := r.lockGenerations(t.Context(), "x")
	if err != nil || len(gens) > keepGenerations || gens[len(gens)-1] < 24 {
		t.Errorf("generations %v, %v", gens, err)
	}
}

func TestLockIsExclusive(t *testing.T) {
	t.Run("mem", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { contend(t, create(t, mem.New(nil), Options{}), time.Minute) })
	})
	t.Run("fs", func(t *testing.T) {
		s, err := fs.Create(filepath.Join(t.TempDir(), "store"))
		if err != nil {
			t.Fatal(err)
		}
		contend(t, create(t, s, Options{}), 0)
	})
	t.Run("a bad store behind Retry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := mem.New(nil)
			create(t, s, Options{})
			bad := blob.Retry(fault.New(s, 1,
				fault.Rule{Chance: 0.05, Action: fault.Fail(nil)},
				fault.Rule{Chance: 0.05, Action: fault.FailAfter(nil)},
				fault.Rule{Chance: 0.1, Action: fault.Delay(300 * time.Millisecond)},
			), blob.RetryOptions{Min: time.Millisecond, Max: 10 * time.Millisecond})
			r, err := Open(t.Context(), bad, Options{Clock: testClock})
			if err != nil {
				t.Fatal(err)
			}
			contend(t, r, time.Minute)
		})
	})
}

// hand is a lock as another process would hold it: nothing renews it but beat.
type hand struct{ *Lock }

func takeByHand(t *testing.T, r *Repository, gen uint64) hand {
	t.Helper()
	l := &Lock{repo: r, name: "x", gen: gen, key: lockKey("x", gen), doc: lockDoc{Holder: "by hand", Token: randomID(16), TTL: ttl}}
	if err := l.write(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	return hand{l}
}

func (h hand) beat(t *testing.T) {
	t.Helper()
	h.doc.Beat++
	if err := h.write(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}

func TestLockOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := create(t, mem.New(nil), Options{})
		takeByHand(t, r, 1)
		_, err := r.Lock(t.Context(), "x", "me", ttl, ttl/2)
		var locked *LockedError
		if !errors.As(err, &locked) || locked.Holder != "by hand" || locked.Name != "x" || !locked.Renewed.Equal(testTime.Truncate(time.Microsecond)) {
			t.Errorf("too early: %v", err)
		}
		start := time.Now()
		l, err := r.Lock(t.Context(), "x", "me", ttl, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < ttl || d > ttl+2*time.Second {
			t.Errorf("taken over after %s", d)
		}
		if err := l.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// One that is renewed, however late, is not taken over: the time to live begins anew.
func TestLockOfTheSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := create(t, mem.New(nil), Options{})
		h := takeByHand(t, r, 1)
		done := make(chan time.Duration)
		start := time.Now()
		go func() {
			l, err := r.Lock(t.Context(), "x", "me", ttl, time.Hour)
			if err != nil {
				t.Error(err)
			}
			done <- time.Since(start)
			_ = l.Unlock(t.Context())
		}()
		for range 5 {
			time.Sleep(ttl - time.Millisecond)
			h.beat(t)
		}
		if d, want := <-done, 6*ttl-5*time.Millisecond; d < want || d > want+2*time.Second {
			t.Errorf("taken over after %s", d)
		}
	})
}

// slowGet makes one Get begin at once and end late, with what was there first.
type slowGet struct {
	blob.Store
	at   int32
	seen atomic.Int32
	wait time.Duration
}

func (s *slowGet) Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	rc, err := s.Store.Get(ctx, key, off, length)
	if s.seen.Add(1) == s.at {
		time.Sleep(s.wait)
	}
	return rc, err
}

// What was read before the time to live had passed proves nothing of its end.
func TestLockRenewedAtTheLastMoment(t *testing.T) {
	for at := int32(1); at < 16; at++ {
		synctest.Test(t, func(t *testing.T) {
			s := mem.New(nil)
			r := create(t, s, Options{})
			h := takeByHand(t, r, 1)
			slow := &slowGet{Store: s, at: at, wait: ttl + time.Second}
			other := &Repository{store: slow, clock: testClock}
			start := time.Now()
			done := make(chan time.Time, 1)
			go func() {
				time.Sleep(ttl - time.Millisecond)
				h.beat(t)
				done <- time.Now()
			}()
			l, err := other.Lock(t.Context(), "x", "me", ttl, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			now, renewed := time.Now(), <-done
			if now.Sub(renewed) < ttl {
				t.Errorf("slow at %d: taken %s after it was renewed, at %s", at, now.Sub(renewed), now.Sub(start))
			}
			_ = l.Unlock(t.Context())
		})
	}
}

func TestLockIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := create(t, mem.New(nil), Options{})
		l, err := r.Lock(t.Context(), "x", "me", ttl, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			_, err := r.Lock(t.Context(), "x", "you", ttl, 3*ttl)
			var locked *LockedError
			if !errors.As(err, &locked) || locked.Holder != "me" {
				t.Errorf("got %v", err)
			}
		}
		if err := l.Context().Err(); err != nil {
			t.Error(err)
		}
		// a name is not another's beginning
		o, err := r.Lock(t.Context(), "x2", "you", ttl, 0)
		if err != nil {
			t.Fatal(err)
		}
		// released it is free at once, and only once released
		for range 2 {
			if err := errors.Join(l.Unlock(t.Context()), o.Unlock(t.Context())); err != nil {
				t.Error(err)
			}
		}
		if err := context.Cause(l.Context()); err != context.Canceled {
			t.Errorf("cause %v", err)
		}
		start := time.Now()
		l, err = r.Lock(t.Context(), "x", "you", ttl, 0)
		if err != nil || time.Since(start) != 0 {
			t.Fatalf("after %s: %v", time.Since(start), err)
		}
		_ = l.Unlock(t.Context())
	})
}

func TestLockIsLost(t *testing.T) {
	for _, test := range []struct {
		name  string
		rule  fault.Rule
		after time.Duration // at the latest
	}{
		{"nothing can be written", fault.Rule{Verb: blob.VerbReplace, Action: fault.Fail(nil)}, ttl},
		{"nothing can be read", fault.Rule{Verb: blob.VerbList, Action: fault.Fail(nil)}, ttl},
		{"writing hangs", fault.Rule{Verb: blob.VerbReplace, Action: fault.Delay(time.Hour)}, ttl},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fault.New(mem.New(nil), 1)
				r := create(t, f, Options{})
				l, err := r.Lock(t.Context(), "x", "me", ttl, 0)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * ttl)
				f.Set(test.rule)
				start := time.Now()
				<-l.Context().Done()
				if d := time.Since(start); d > test.after || d < ttl/2 || !errors.Is(context.Cause(l.Context()), ErrLockLost) {
					t.Errorf("after %s: %v", d, context.Cause(l.Context()))
				}
				f.Set()
				if err := l.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
				if top, err := r.lockTop(t.Context(), "x"); err != nil || top.free() {
					t.Errorf("one that was lost was released: %+v, %v", top, err)
				}
			})
		})
	}
	t.Run("taken over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := create(t, mem.New(nil), Options{})
			l, err := r.Lock(t.Context(), "x", "me", ttl, 0)
			if err != nil {
				t.Fatal(err)
			}
			takeByHand(t, r, 2)
			start := time.Now()
			<-l.Context().Done()
			if d := time.Since(start); d > ttl/3 || !errors.Is(context.Cause(l.Context()), ErrLockLost) {
				t.Errorf("after %s: %v", d, context.Cause(l.Context()))
			}
		})
	})
}

// A renewal that ends after the time to live is none, although it was stored.
func TestLockRenewedTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(nil)
		r := create(t, s, Options{})
		deaf := &deafReplace{Store: s}
		l, err := (&Repository{store: deaf, clock: testClock}).Lock(t.Context(), "x", "me", ttl, 0)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		deaf.wait.Store(int64(ttl)) // longer than the context of a renewal, which it does not mind
		other, err := r.Lock(t.Context(), "x", "you", ttl, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if l.Context().Err() == nil {
			t.Errorf("two hold it after %s", time.Since(start))
		}
		time.Sleep(3 * ttl)
		if l.Context().Err() == nil || other.Context().Err() != nil {
			t.Errorf("%v, %v", l.Context().Err(), other.Context().Err())
		}
		if err := errors.Join(l.Unlock(t.Context()), other.Unlock(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// A holder counts from when it began to write, for others see the write before it
// knows that it was done.
func TestLockWhoseAnswersAreLate(t *testing.T) {
	for _, verb := range []blob.Verb{blob.VerbPut, blob.VerbReplace} {
		for _, late := range []time.Duration{time.Second, ttl / 4, ttl * 3 / 4, ttl - time.Millisecond, 2 * ttl} {
			synctest.Test(t, func(t *testing.T) {
				s := mem.New(nil)
				r := create(t, s, Options{})
				slow := &lateAnswer{Store: s, verb: verb, late: late, landed: make(chan time.Time, 1)}
				lost := make(chan time.Time, 1)
				go func() {
					l, err := (&Repository{store: slow, clock: testClock}).Lock(t.Context(), "x", "me", ttl, 0)
					if err == nil {
						<-l.Context().Done()
					}
					lost <- time.Now()
					var locked *LockedError
					if err != nil && (late < ttl || !errors.As(err, &locked)) {
						t.Error(err)
					}
				}()
				landed := <-slow.landed
				other, err := r.Lock(t.Context(), "x", "you", ttl, time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				taken := time.Now()
				if end := <-lost; end.After(taken) && late < ttl {
					t.Errorf("%s, %s late: held until %s, taken over after %s", verb, late, end.Sub(landed), taken.Sub(landed))
				}
				_ = other.Unlock(t.Context())
				time.Sleep(3 * ttl) // until the late answer came
			})
		}
	}
}

// lateAnswer does one call of verb at once and says so late; what is written after that
// fails.
type lateAnswer struct {
	blob.Store
	verb   blob.Verb
	late   time.Duration
	done   atomic.Bool
	landed chan time.Time
}

func (s *lateAnswer) answer(verb blob.Verb, err error) error {
	if verb == s.verb && s.done.CompareAndSwap(false, true) {
		s.landed <- time.Now()
		time.Sleep(s.late)
	}
	return err
}

func (s *lateAnswer) Put(ctx context.Context, key string, b blob.Body) error {
	return s.answer(blob.VerbPut, s.Store.Put(ctx, key, b))
}

func (s *lateAnswer) Replace(_ context.Context, key string, b blob.Body) error {
	if s.done.Load() {
		return blob.ErrUnreachable
	}
	return s.answer(blob.VerbReplace, s.Store.Replace(context.Background(), key, b))
}

type deafReplace struct {
	blob.Store
	wait atomic.Int64
}

func (d *deafReplace) Replace(_ context.Context, key string, b blob.Body) error {
	time.Sleep(time.Duration(d.wait.Load()))
	return d.Store.Replace(context.Background(), key, b)
}

// sleepy sleeps before its first Put, long enough for others to come and go.
type sleepy struct {
	blob.Store
	asleep func()
}

func (s *sleepy) Put(ctx context.Context, key string, b blob.Body) error {
	if s.asleep != nil {
		asleep := s.asleep
		s.asleep = nil
		asleep()
	}
	return s.Store.Put(ctx, key, b)
}

func TestLockOfASleeper(t *testing.T) {
	for _, comeAndGo := range []int{0, 1, 3, keepGenerations, 2*keepGenerations + 1} {
		synctest.Test(t, func(t *testing.T) {
			s := mem.New(nil)
			r := create(t, s, Options{})
			var held *Lock
			z := &sleepy{Store: s, asleep: func() {
				for range comeAndGo {
					l, err := r.Lock(t.Context(), "x", "quick", ttl, 0)
					if err != nil {
						t.Error(err)
					}
					_ = l.Unlock(t.Context())
				}
				var err error
				if held, err = r.Lock(t.Context(), "x", "quick", ttl, 0); err != nil {
					t.Error(err)
				}
			}}
			_, err := (&Repository{store: z, clock: testClock}).Lock(t.Context(), "x", "sleeper", ttl, time.Minute)
			var locked *LockedError
			if !errors.As(err, &locked) || locked.Holder != "quick" {
				t.Errorf("after %d others: %v", comeAndGo, err)
			}
			if held.Context().Err() != nil {
				t.Errorf("after %d others: %v", comeAndGo, context.Cause(held.Context()))
			}
			if err := held.Unlock(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLockRefuses(t *testing.T) {
	s := mem.New(nil)
	r := create(t, s, Options{})
	for _, name := range []string{"", "a/b", "..", "a b"} {
		if _, err := r.Lock(t.Context(), name, "me", ttl, 0); err == nil {
			t.Errorf("%q was locked", name)
		}
	}
	if _, err := r.Lock(t.Context(), "x", "me", time.Second, 0); err == nil {
		t.Error("too short a time to live")
	}
	takeByHand(t, r, 1)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := r.Lock(ctx, "x", "me", ttl, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, stray := range []string{"x", "1", "000000000000000A"} {
		key := "locks/x/" + stray
		replace(t, s, key, nil)
		_, err := r.Lock(t.Context(), "x", "me", ttl, 0)
		wantDamage(t, "a stray name", key, err)
		_ = s.Delete(t.Context(), key)
	}
}

func TestLockOverFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(nil)
		create(t, s, Options{})
		for n := 1; ; n++ {
			for _, action := range []fault.Action{fault.Fail(nil), fault.FailAfter(nil)} {
				f := fault.New(s, 1, fault.Rule{Nth: n, Action: action})
				r := &Repository{store: f, clock: testClock}
				l, err := r.Lock(t.Context(), "x", "me", ttl, 0)
				if err == nil {
					// nothing else may hold it now
					if _, err := r.Lock(t.Context(), "x", "you", ttl, 0); err == nil {
						t.Fatalf("fault %d: two hold it", n)
					}
					f.Set()
					if err := l.Unlock(t.Context()); err != nil {
						t.Error(err)
					}
					if n > 10 {
						return
					}
					continue
				}
				if !errors.Is(err, blob.ErrUnreachable) {
					t.Errorf("fault %d: %v", n, err)
				}
				f.Set()
				if l, err = r.Lock(t.Context(), "x", "me", ttl, 2*ttl); err != nil {
					t.Fatalf("fault %d: %v", n, err)
				}
				if err := l.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
