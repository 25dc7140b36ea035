// SPDX-License-Identifier: Apache-2.0

package walscan_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

// inspected is a record as the extension pg_walinspect shows it. It tells, as
// pg_waldump does not, where records end.
type inspected struct {
	Start, End, Prev string
	XID              int64
	Rmgr             string
	Len, Main, FPI   int
}

func TestAgainstWalinspect(t *testing.T) {
	for _, major := range []int{15, 16, 17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := startForWAL(t, major, 1)
			each(t, s, "create extension pg_walinspect")
			tables(t, s)
			transactions(t, s)
			each(t, s, "select pg_logical_emit_message(true, 'test', repeat('long ', 600000))", "select pg_switch_wal()")

			dir, size := filepath.Join(s.DataDir, "pg_wal"), pg.SegmentSize(1<<20)
			first := firstSegment(t, dir, size)
			rows, err := s.Conn(t, "postgres").Query(context.Background(), fmt.Sprintf(
				`select start_lsn::text, end_lsn::text, prev_lsn::text, xid::text::bigint, resource_manager, record_length, main_data_length, fpi_length
				 from pg_get_wal_records_info('%s', pg_current_wal_flush_lsn())`, size.Start(first)))
			if err != nil {
				t.Fatal(err)
			}
			want, err := pgx.CollectRows(rows, pgx.RowToStructByPos[inspected])
			if err != nil {
				t.Fatal(err)
			}
			errEnough := errors.New("enough")
			n := 0
			sc := walscan.New(walscan.Options{SegmentSize: size, Start: size.Start(first)})
			err = feedDir(t, sc, dir, 1, size, ragged(), func(r *walscan.Record) error {
				images := 0
				for _, b := range r.Blocks {
					images += b.ImageLen
				}
				got := inspected{r.Start.String(), r.End.String(), r.Prev.String(), int64(r.XID), r.Rmgr.String(), int(r.TotalLen), len(r.Main), images}
				if diff := cmp.Diff(want[n], got); diff != "" {
					t.Errorf("record %d (-pg_walinspect +walscan):\n%s", n, diff)
				}
				if sc.Position() < r.Start+pg.LSN(r.TotalLen) || sc.Position() > r.End {
					t.Errorf("in %s to %s the position is %s", r.Start, r.End, sc.Position())
				}
				if n++; n == len(want) {
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, errEnough) {
				t.Errorf("%d records of %d: %v", n, len(want), err)
			}
		})
	}
}

// TestCommitTimes holds commits against the server's own record of them, on the
// release that has neither pg_waldump here nor pg_walinspect.
func TestCommitTimes(t *testing.T) {
	s := startForWAL(t, 14, 16)
	s.Set(t, map[string]string{"track_commit_timestamp": "on"})
	s.Restart(t)
	var oldest uint32
	s.QueryRow(t, "select txid_current()", &oldest)
	tables(t, s)
	transactions(t, s)
	rewrites(t, s)
	databases(t, s)

	seen := map[uint32]time.Time{}
	dir, size := filepath.Join(s.DataDir, "pg_wal"), pg.DefaultSegmentSize
	var last pg.XID
	sc := scanDir(t, dir, 1, size, firstSegment(t, dir, size), ragged(), func(r *walscan.Record) error {
		last = max(last, r.XID)
		x, ok, err := r.Xact()
		if !ok || !x.Kind.Committed() {
			return err
		}
		seen[uint32(x.XID)] = x.Time.Time()
		for _, sub := range x.Subxacts {
			seen[uint32(sub)] = x.Time.Time()
		}
		return nil
	})
	if sc.Major() != 14 {
		t.Errorf("release is %d", sc.Major())
	}
	rows, err := s.Conn(t, "postgres").Query(context.Background(), fmt.Sprintf(
		"select i, pg_xact_commit_timestamp(i::text::xid) from generate_series(%d, %d) i", oldest, uint32(last)))
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	var xid int64
	var at *time.Time
	if _, err := pgx.ForEachRow(rows, []any{&xid, &at}, func() error {
		got, ok := seen[uint32(xid)]
		switch {
		case at == nil && ok:
			t.Errorf("transaction %d did not commit; decoded %s", xid, got)
		case at != nil && !got.Equal(*at):
			t.Errorf("transaction %d committed at %s; decoded %s", xid, at.UTC(), got)
		case at != nil:
			checked++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if checked < 250 {
		t.Errorf("only %d commits checked", checked)
	}
}
