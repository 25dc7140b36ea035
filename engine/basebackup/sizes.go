// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"github.com/kbcli/kbcli/engine/repository"
)

// sizing is how a backup does with the memory that it has.
type sizing struct {
	workers int // read, check and compress
	uploads int // packs that are being stored while others are filled
	pack    int // bytes of a pack
}

// What a backup holds in memory, in bytes, about. The lists are measured: of 100,000 files
// and of a terabyte's frames.
const (
	heldAnyway = 8 << 20 // connections, buffers of the store, tables
	heldByFile = 800     // its entry, its pieces, its row in the list and the list encoded
	heldByMiB  = 160     // a frame of it, a piece and an extent
	heldWorker = repository.FrameSize + 4<<20
	usualPack  = repository.PackSize
	smallPack  = 1 << 20
)

// need is what s holds of memory at once beside the lists.
func (s sizing) need(sealed bool) int64 {
	pack := int64(s.pack) + 2*repository.FrameSize
	n := int64(s.workers)*heldWorker + int64(s.workers+s.uploads)*pack
	if sealed {
		n += int64(s.uploads) * pack // a pack and what it is sealed as
	}
	return n
}

// sizes divides the memory of the bounds: as many workers as were asked for, with packs of
// the usual size, or else with smaller ones, or else fewer of them. total are the bytes to be read.
func sizes(cfg *Config, entries []entry, total int64, b *base) (sizing, error) {
	lists := int64(heldAnyway) + int64(len(entries))*heldByFile + total>>20*heldByMiB
	if b != nil {
		extents := int64(0)
		for i := range b.files.Files {
			extents += int64(len(b.files.Files[i].Extents))
		}
		lists += int64(len(b.files.Files))*heldByFile/2 + int64(len(b.files.Frames))*heldByMiB/2 + extents*64
	}
	room := cfg.Bounds.Room() - lists
	if cfg.Bounds.Memory == 0 {
		room = max(room, cfg.Bounds.Room()/2) // lists that are longer get more memory
	}
	sealed := cfg.Lineage.Repository().Sealed()
	most := max(cfg.Workers, 1)
	if n := cfg.Bounds.Workers; n > 0 {
		most = min(most, n)
	}
	for workers := most; workers > 0; workers-- {
		for pack := usualPack; pack >= smallPack; pack /= 2 {
			// small packs are many requests: rather fewer workers, if there are several
			if pack < usualPack/4 && workers > 1 {
				break
			}
			s := sizing{workers, min(workers, 2), pack}
			if s.need(sealed) <= room {
				return s, cfg.Bounds.Check(lists + s.need(sealed))
			}
		}
	}
	s := sizing{1, 1, smallPack}
	return s, cfg.Bounds.Check(lists + s.need(sealed))
}
