// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// weigh counts the records of an index that are replayed before stop: of an index that is
// replayed in part, as many as its part has at an average.
func (r *Resolution) weigh(x *walindex.Index, stop pg.LSN) {
	from, to := max(x.First, r.Backup.StartLSN), min(x.Next, stop)
	if x.First == 0 || x.Next <= x.First || to <= from {
		return
	}
	var n uint64
	for _, b := range x.Bytes {
		n += b.Records
	}
	r.Records += uint64(float64(n) * float64(to-from) / float64(x.Next-x.First))
}
