// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Prepared is a transaction that was prepared and neither committed nor rolled back
// by the stop: after the restore it is there again, with its locks.
type Prepared struct {
	XID  pg.XID    `json:"xid"`
	GID  string    `json:"gid,omitempty"` // empty for one that was prepared before the backup
	Time time.Time `json:"time,omitzero"`
	LSN  pg.LSN    `json:"lsn,omitempty"`
}

// openSet are the transactions that are prepared, as WAL goes by. Those that the
// backup brings along have no record.
type openSet map[pg.XID]*walindex.Transaction

func (s openSet) note(tx *walindex.Transaction) {
	switch tx.Kind {
	case walscan.Prepare:
		s[tx.XID] = tx
	case walscan.CommitPrepared, walscan.AbortPrepared:
		delete(s, tx.XID)
	}
}

// preparedInBackup are those whose state files are in a backup: they were prepared
// before it began.
func (c *Catalog) preparedInBackup(ctx context.Context, m *repository.Manifest) (openSet, error) {
	open := openSet{}
	if m.Settings.MaxPreparedXacts == 0 {
		return open, nil // none could be prepared
	}
	files, err := c.l.Files(ctx, m)
	if err != nil {
		return nil, err
	}
	for _, f := range files.Files {
		dir, name := path.Split(f.Path)
		if dir != "pg_twophase/" || len(name) < 8 {
			continue
		}
		// 16 digits since 17, the epoch first
		if xid, err := strconv.ParseUint(name[len(name)-8:], 16, 32); err == nil {
			open[pg.XID(xid)] = nil
		}
	}
	return open, nil
}

// gids reads the names of prepared transactions from their records.
func (c *Catalog) gids(ctx context.Context, p Path, open openSet, end pg.LSN) ([]Prepared, error) {
	names := map[pg.LSN]string{}
	for _, tx := range open {
		if tx == nil || names[tx.Start] != "" {
			continue
		}
		// one record may reach into the next segment; the others are near
		n := c.inv.size.Number(tx.Start)
		err := c.walk(ctx, p, n, end, func(r *walscan.Record) error {
			x, ok, err := r.Xact()
			if ok && x.Kind == walscan.Prepare {
				names[r.Start] = x.GID
			}
			if err == nil && r.Start >= tx.Start && c.inv.size.Number(r.End) > n {
				return errEnough
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	var out []Prepared
	for _, xid := range slices.Sorted(maps.Keys(open)) {
		one := Prepared{XID: xid}
		if tx := open[xid]; tx != nil {
			one.Time, one.LSN, one.GID = tx.Time.Time(), tx.Start, names[tx.Start]
		}
		out = append(out, one)
	}
	return out, nil
}

func (r *Resolution) warnPrepared() {
	if len(r.Prepared) == 0 {
		return
	}
	var names []string
	for _, p := range r.Prepared {
		name := fmt.Sprintf("%q (xid %d)", p.GID, p.XID)
		if p.GID == "" {
			name = fmt.Sprintf("xid %d", p.XID)
		}
		names = append(names, name)
	}
	const most = 5
	if n := len(names) - most; n > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", n))
	}
	r.Warnings = append(r.Warnings, "prepared transactions will be there again and hold their locks until they are committed or rolled back: "+strings.Join(names, ", "))
}
