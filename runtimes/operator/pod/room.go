// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/runtimes/operator/room"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// roomInterval is how often the volume is asked how full it is.
const roomInterval = 5 * time.Second

// worthTelling tells whether a room.Use differs from what was told: by its level, its size,
// or a twentieth of it.
func worthTelling(told, is room.Use) bool {
	return told.Level() != is.Level() || told.Size != is.Size || max(told.Free-is.Free, is.Free-told.Free) > is.Size/20
}

// watchRoom tells on the pod how full its volume is, also while its server is down, until
// ctx ends.
func (k *keeper) watchRoom(ctx context.Context) {
	var told room.Use
	tick := time.NewTicker(roomInterval)
	defer tick.Stop()
	was := ""
	for {
		is, err := room.Of(specs.VolumeDirectory)
		if err == nil && worthTelling(told, is) {
			if err = k.Note(ctx, room.Annotation, is.String()); err == nil {
				told = is
			}
		}
		if now := fmt.Sprint(err); err != nil && now != was && ctx.Err() == nil {
			k.Log.Warn("how full the volume is cannot be told", "error", err)
			was = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// spoolMost is how much the spool may take on this pod's volume; 0 where that is not known.
func (k *keeper) spoolMost() int64 {
	u, err := room.Of(specs.VolumeDirectory)
	if err != nil {
		return 0 // watchRoom says so
	}
	return room.SpoolMost(u.Size)
}
