// SPDX-License-Identifier: Apache-2.0

package specs

import "github.com/kbcli/kbcli/api/v1alpha1"

// walRoom are the settings by which a server keeps WAL: PostgreSQL's own, and less on a
// volume on which those would take a large part.
func walRoom(c *v1alpha1.Cluster) patroniSettings {
	size := c.Spec.Storage.Value()
	p := patroniSettings{
		// a belt beside the slots: a new primary has what its slot was just made for
		"wal_keep_size": megabytes(min(512<<20, size/8)),
		// an agent that has been away for long costs a gap, not the server
		"max_slot_wal_keep_size": megabytes(size / 2),
	}
	if most := size / 5; most < 1<<30 {
		p["max_wal_size"] = megabytes(max(64<<20, most))
		p["min_wal_size"] = megabytes(min(80<<20, max(32<<20, most/2)))
	}
	return p
}
