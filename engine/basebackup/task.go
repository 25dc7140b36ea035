// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"slices"

	"github.com/kbcli/kbcli/engine/repository"
)

// rangeSize is the most of one file that one task reads, so that a few large files
// keep all workers busy.
const rangeSize = 64 << 20

// part is a stretch of a file.
type part struct {
	entry int
	span
}

// task is what one worker reads in one go: a range of a file, several small files that
// share a frame, or stretches that changed. A task begins with a frame of its own, so
// that what is in a frame does not depend on which worker came first.
type task struct {
	parts []part
	size  int64
}

func (t *task) add(i int, s span) {
	t.parts = append(t.parts, part{i, s})
	t.size += s.end - s.from
}

// changedSize is about how much one task reads of what changed here and there.
const changedSize = 8 << 20

// tasks cuts what is to be read into tasks, the largest first.
func tasks(entries []entry, shares []share) []task {
	const frame = repository.FrameSize
	var out []task
	var small, alone, changed task
	flush := func(t *task) {
		if len(t.parts) > 0 {
			out = append(out, *t)
			*t = task{}
		}
	}
	for i := range entries {
		e := &entries[i]
		whole := len(shares[i].read) == 1 && shares[i].base == nil
		for _, s := range shares[i].read {
			switch {
			case whole && e.Size >= repository.FrameSize/2:
				for from := s.from; from < s.end; from += rangeSize {
					var t task
					t.add(i, span{from, min(from+rangeSize, s.end)})
					out = append(out, t)
				}
			case whole:
				t := &small
				if e.alone() {
					t = &alone
				}
				if t.size+e.Size > repository.FrameSize {
					flush(t)
				}
				t.add(i, s)
			default:
				// what is whole frames of a file is cut as if all of it was read
				from, end := (s.from+frame-1)/frame*frame, s.end/frame*frame
				if from >= end {
					from, end = s.end, s.end
				}
				for at := from; at < end; {
					var t task
					t.add(i, span{at, min((at/rangeSize+1)*rangeSize, end)})
					out = append(out, t)
					at += t.size
				}
				for _, rest := range []span{{s.from, from}, {end, s.end}} {
					if rest.from < rest.end {
						changed.add(i, rest)
					}
				}
				if changed.size >= changedSize {
					flush(&changed)
				}
			}
		}
	}
	flush(&small)
	flush(&alone)
	flush(&changed)
	slices.SortStableFunc(out, func(a, b task) int { return int(b.size - a.size) })
	return out
}
