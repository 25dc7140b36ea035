// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
)

// coalesce is how many unused bytes between two frames are read rather than
// asked around.
const coalesce = 256 << 10

// frameBuffers are what reading frames takes, kept for the next who reads.
type frameBuffers struct {
	in          *bufio.Reader
	stored, raw []byte
}

var frameBuffersPool = sync.Pool{New: func() any {
	return &frameBuffers{in: bufio.NewReaderSize(nil, 128<<10)}
}}

// ReadFrames reads frames of one pack, in ascending order of Offset, and calls fn
// with the number in frames and the checked raw bytes, valid only during fn. It
// holds one frame in memory, as it is stored and raw, and reads on when fn returned.
func (l *Lineage) ReadFrames(ctx context.Context, p PackRef, frames []FrameInfo, fn func(i int, raw []byte) error) error {
	key := l.packKey(p)
	if !slices.IsSortedFunc(frames, func(a, b FrameInfo) int { return cmp.Compare(a.Offset, b.Offset) }) {
		return fmt.Errorf("read %s: frames are not in order", key)
	}
	r := framesReader{key: key, frames: frames, fn: fn, frameBuffers: frameBuffersPool.Get().(*frameBuffers)}
	defer func() {
		r.in.Reset(nil)
		frameBuffersPool.Put(r.frameBuffers)
	}()
	if len(frames) > 0 && l.repo.Sealed() {
		return l.readSealedFrames(ctx, &r)
	}
	return r.groups(func(base, end uint64, from, to int) error {
		rc, err := l.repo.store.Get(ctx, key, headerSize(key)+int64(base), int64(end-base))
		if err != nil {
			return err
		}
		defer rc.Close()
		return r.read(rc, base, from, to)
	})
}

// groups calls fn for each stretch of the pack, from base to end, that is read in one go,
// and the frames [from, to) in it.
func (r *framesReader) groups(fn func(base, end uint64, from, to int) error) error {
	frames := r.frames
	for i := 0; i < len(frames); {
		base := frames[i].Offset
		end := base + uint64(frames[i].Stored)
		j := i + 1
		for ; j < len(frames) && frames[j].Offset <= end+coalesce && end-base < PackSize; j++ {
			end = max(end, frames[j].Offset+uint64(frames[j].Stored))
		}
		if base > math.MaxInt64/2 || end-base > PackSize+coalesce+2*maxStored {
			return &CorruptError{r.key, fmt.Sprintf("the frame said to be at %d is out of range", base)}
		}
		if err := fn(base, end, i, j); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// end looks, where little is left of the pack, that it ends as it was written.
func (r *framesReader) end(rc io.Reader) error {
	switch _, err := io.CopyN(io.Discard, r.in, int64(r.in.Size())); {
	case err == nil:
		return nil
	case err != io.EOF:
		return &unreadError{r.key, err}
	}
	switch n, err := io.ReadFull(rc, make([]byte, 1)); {
	case n > 0:
		return &CorruptError{r.key, "it has more bytes than its envelope says"}
	case err != io.EOF:
		return fmt.Errorf("read %s: %w", r.key, err)
	}
	return nil
}

// unreadError says that bytes of a pack could not be read.
type unreadError struct {
	key string
	err error
}

func (e *unreadError) Error() string { return fmt.Sprintf("read %s: %v", e.key, e.err) }
func (e *unreadError) Unwrap() error { return e.err }

// framesReader takes frames out of a stream.
type framesReader struct {
	*frameBuffers
	key    string
	frames []FrameInfo
	fn     func(i int, raw []byte) error
}

// read gives fn the frames [from, to) of a payload that in reads from base on. Two of
// them may have bytes in common, and are then the same.
func (r *framesReader) read(in io.Reader, base uint64, from, to int) error {
	r.in.Reset(in)
	at := base
	for i := from; i < to; i++ {
		f := r.frames[i]
		if f.Stored > maxStored || f.Raw > FrameSize {
			return &CorruptError{r.key, fmt.Sprintf("the frame said to be at %d is out of range", f.Offset)}
		}
		if again := i > from && f == r.frames[i-1]; !again {
			if f.Offset < at {
				return &CorruptError{r.key, fmt.Sprintf("the frame said to be at %d reaches into the one before", f.Offset)}
			}
			if err := r.skip(f.Offset - at); err != nil {
				return err
			}
			if err := r.take(int(f.Stored)); err != nil {
				return err
			}
			at = f.Offset + uint64(f.Stored)
			out, err := decodeFrame(r.raw, r.stored, f)
			if err != nil {
				return &CorruptError{r.key, fmt.Sprintf("frame at %d: %v", f.Offset, err)}
			}
			r.raw = out
		}
		if err := r.fn(i, r.raw); err != nil {
			return err
		}
	}
	return nil
}

// take reads n bytes into stored.
func (r *framesReader) take(n int) error {
	if cap(r.stored) < n {
		r.stored = make([]byte, 0, maxStored)
	}
	r.stored = r.stored[:n]
	for done := 0; done < n; {
		m, err := r.in.Read(r.stored[done:])
		if done += m; done < n && err != nil {
			return r.unread(err, n-done)
		}
	}
	return nil
}

func (r *framesReader) skip(n uint64) error {
	for n > 0 {
		m, err := r.in.Discard(int(min(n, 1<<20)))
		if n -= uint64(m); n > 0 && err != nil {
			return r.unread(err, int(n))
		}
	}
	return nil
}

// unread tells the end of an object from a place that broke off.
func (r *framesReader) unread(err error, missing int) error {
	if err == io.EOF {
		return &CorruptError{r.key, fmt.Sprintf("it ends %d bytes early", missing)}
	}
	return &unreadError{r.key, err}
}
