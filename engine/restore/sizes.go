// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/bounds"
)

// What a restore holds in memory, in bytes, about.
const (
	heldAnyway  = 8 << 20 // connections, buffers of the store
	heldByFile  = 400     // its row, what is known of it while it is written, its line in backup_manifest
	heldByFrame = 240
	heldByPart  = 72 // of a file: an extent, where it goes, its checksum

	// a frame as it is stored and raw, what unpacks it, a request; with Delta a frame of
	// the directory, and what it is compared with
	heldJob      = 3*repository.FrameSize + 1<<20
	heldDeltaJob = heldJob + 2*repository.FrameSize
)

// workers is how many packs are unpacked at once.
func (f *fetcher) workers() (int, error) {
	lists := int64(heldAnyway) + int64(len(f.files.Files))*heldByFile + int64(len(f.files.Frames))*heldByFrame
	for i := range f.files.Files {
		lists += int64(len(f.files.Files[i].Extents)) * heldByPart
	}
	job := int64(heldJob)
	if f.into.Delta != nil {
		job = heldDeltaJob
	}
	// half of them wait for the disk or the repository
	return divide(f.into.Bounds, 2*f.into.Jobs, lists, job)
}

// feeders is how many segments of WAL are fetched at once: each as it is stored and raw.
func feeders(b bounds.Bounds, jobs int, segment int64) (int, error) {
	return divide(b, jobs, heldAnyway, 2*segment)
}

// divide is how many jobs there are room for beside what is needed anyway.
func divide(b bounds.Bounds, jobs int, anyway, job int64) (int, error) {
	most := max(jobs, 1)
	if b.Workers > 0 {
		most = min(most, b.Workers)
	}
	room := b.Room() - anyway
	if b.Memory == 0 {
		room = max(room, b.Room()/2)
	}
	n := max(min(int64(most), room/job), 1)
	return int(n), b.Check(anyway + n*job)
}
