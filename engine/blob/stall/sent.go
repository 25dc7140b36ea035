// SPDX-License-Identifier: Apache-2.0

package stall

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// Sent is a body as a request reads it: from its start to its end, once. The watch runs
// while the network has the bytes, and not while they are read, which a limit may make slow.
type Sent struct {
	body io.ReaderAt
	size int64
	next int64
	w    *Watch

	mu   sync.Mutex
	over bool
	err  error // of the body, not of the network
}

// NewSent makes one of the first size bytes of body.
func NewSent(body io.ReaderAt, size int64, w *Watch) *Sent {
	return &Sent{body: body, size: size, w: w}
}

var errOver = errors.New("the request is over")

func (s *Sent) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return 0, errOver
	}
	s.w.Stop()
	defer s.w.Start()
	if s.next == s.size {
		return 0, io.EOF
	}
	n, err := s.body.ReadAt(p[:min(int64(len(p)), s.size-s.next)], s.next)
	s.next += int64(n)
	if n > 0 {
		return n, nil // what else there was to say comes with the next read
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	s.err = fmt.Errorf("read body: %w", err)
	return 0, s.err
}

// End says why the body could not be read; nil if it could. It waits for a Read that is
// under way and lets no other begin: net/http may go on reading after a request has ended,
// as after an early answer, when the bytes belong to the caller again.
func (s *Sent) End() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.w.Stop()
	return s.err
}
