// SPDX-License-Identifier: Apache-2.0

package served_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// watched is a body that is slow to be read, and counts who reads it.
type watched struct {
	size    int64
	begun   chan struct{} // gets one at each read
	reading atomic.Int64
	reads   atomic.Int64
}

func (w *watched) Size() int64 { return w.size }

func (w *watched) ReadAt(p []byte, _ int64) (int, error) {
	w.reading.Add(1)
	defer w.reading.Add(-1)
	w.reads.Add(1)
	select {
	case w.begun <- struct{}{}:
	default:
	}
	time.Sleep(50 * time.Millisecond)
	return len(p), nil
}

// TestBodyIsGivenBack: once Put has returned nobody reads its body, whose bytes are the
// caller's again: he fills them with something else.
func TestBodyIsGivenBack(t *testing.T) {
	a := access(t)
	for name, refuse := range map[string]bool{"canceled": false, "refused early": true} {
		t.Run(name, func(t *testing.T) {
			at := serve(t, a, directory(t), func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if refuse {
						if _, err := r.Body.Read(make([]byte, 1)); err != nil {
							t.Error(err)
						}
						http.Error(w, "enough", http.StatusInsufficientStorage)
						return
					}
					h.ServeHTTP(w, r)
				})
			})
			s := open(t, at, a)
			body := &watched{size: 16 << 20, begun: make(chan struct{}, 1)}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if !refuse {
				go func() { <-body.begun; cancel() }()
			}
			if err := s.Put(ctx, "a", body); err == nil {
				t.Fatal("it was stored")
			}
			if n := body.reading.Load(); n != 0 {
				t.Errorf("%d still read it", n)
			}
			was := body.reads.Load()
			time.Sleep(200 * time.Millisecond)
			if n := body.reads.Load() - was; n != 0 {
				t.Errorf("it was read %d times afterwards", n)
			}
		})
	}
}
