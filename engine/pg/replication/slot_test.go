// SPDX-License-Identifier: Apache-2.0

package replication_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kbcli/kbcli/engine/pg/replication"
)

func TestSlotLifeCycle(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major)
		ctx := t.Context()
		c := s.connect(t)
		if err := c.DropSlot(ctx, "s1"); !errors.Is(err, replication.ErrSlotNotFound) {
			t.Errorf("dropping no slot: %v", err)
		}
		if err := c.CreateSlot(ctx, "s1", false, false); err != nil {
			t.Fatal(err)
		}
		if err := c.CreateSlot(ctx, "s1", true, false); !errors.Is(err, replication.ErrSlotExists) {
			t.Errorf("making a slot twice: %v", err)
		}
		readSlot := func(name string, want bool) replication.Slot {
			t.Helper()
			slot, found, err := c.ReadSlot(ctx, name)
			if major < 15 {
				if !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("read slot on %d: %v", major, err)
				}
				return slot
			}
			if err != nil || found != want {
				t.Errorf("read slot %s: %v, %v", name, found, err)
			}
			return slot
		}
		readSlot("nil", false)
		if got := readSlot("s1", true); got != (replication.Slot{}) {
			t.Errorf("a slot that reserves nothing: %+v", got)
		}
		if err := c.DropSlot(ctx, "s1"); err != nil {
			t.Fatal(err)
		}
		if err := c.CreateSlot(ctx, "s1", true, false); err != nil {
			t.Fatal(err)
		}
		before := parseLSN(t, s.sql(t, "select restart_lsn from pg_replication_slots"))
		if got := readSlot("s1", true); major >= 15 && (got.RestartLSN != before || got.RestartTimeline != 1) {
			t.Errorf("slot at %+v, server says %s", got, before)
		}
		if err := c.CreateSlot(ctx, "s2", true, true); err != nil {
			t.Fatal(err)
		}

		stream, err := c.Start(ctx, replication.StartOptions{Slot: "s1", Timeline: 1, LSN: mib.Floor(before)})
		if err != nil {
			t.Fatal(err)
		}
		other := s.connect(t)
		if _, err := other.Start(ctx, replication.StartOptions{Slot: "s1", Timeline: 1, LSN: mib.Floor(before)}); !errors.Is(err, replication.ErrSlotActive) {
			t.Errorf("streaming twice from a slot: %v", err)
		}
		if err := other.DropSlot(ctx, "s1"); !errors.Is(err, replication.ErrSlotActive) {
			t.Errorf("dropping a slot in use: %v", err)
		}
		if _, err := other.Start(ctx, replication.StartOptions{Slot: "nil", Timeline: 1, LSN: before}); !errors.Is(err, replication.ErrSlotNotFound) {
			t.Errorf("streaming from no slot: %v", err)
		}
		if _, err := other.IdentifySystem(ctx); err != nil {
			t.Errorf("after refusals: %v", err)
		}

		s.traffic(t, 2)
		end := parseLSN(t, s.sql(t, "select pg_current_wal_flush_lsn()"))
		var got bytes.Buffer
		collect(t, stream, &got, mib.Floor(before), end)
		if err := stream.Status(replication.Status{Write: end, Flush: end - 8, Apply: end - 16}); err != nil {
			t.Fatal(err)
		}
		s.await(t, "select restart_lsn from pg_replication_slots where slot_name = 's1'", (end - 8).String())
		s.await(t, "select write_lsn || ' ' || flush_lsn || ' ' || replay_lsn from pg_stat_replication where application_name = 'under_test' and state = 'streaming'",
			end.String()+" "+(end-8).String()+" "+(end-16).String())
		if year := s.sql(t, "select extract(year from reply_time) > 2020 from pg_stat_replication where reply_time is not null"); year != "t" {
			t.Error("the time of the reply is not a clock's")
		}
		c.Close()
		s.await(t, "select count(*) from pg_replication_slots", "1") // the temporary one is gone
		s.await(t, "select count(*) from pg_replication_slots where active", "0")
		if err := other.DropSlot(ctx, "s1"); err != nil {
			t.Error(err)
		}
	})
}

// A slot that lost WAL: 18 says so; before, the position alone can tell.
func TestInvalidatedSlot(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major, "min_wal_size=2MB", "max_wal_size=2MB", "max_slot_wal_keep_size=2MB")
		ctx := t.Context()
		c := s.connect(t)
		if err := c.CreateSlot(ctx, "lost", true, false); err != nil {
			t.Fatal(err)
		}
		from := mib.Floor(parseLSN(t, s.sql(t, "select restart_lsn from pg_replication_slots")))
		for range 2 {
			s.traffic(t, 5)
			s.sql(t, "checkpoint")
		}
		s.await(t, "select wal_status from pg_replication_slots", "lost")
		stream, err := c.Start(ctx, replication.StartOptions{Slot: "lost", Timeline: 1, LSN: from})
		if major >= 18 {
			if !errors.Is(err, replication.ErrSlotInvalidated) {
				t.Errorf("%v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Receive(ctx)
		mustAs[*replication.SegmentRemovedError](t, err)
	})
}
