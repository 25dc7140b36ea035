// SPDX-License-Identifier: Apache-2.0

package walscan

import (
	"errors"
	"testing"

	"github.com/kbcli/kbcli/engine/pg"
)

// head is a long page header of release 15 and the first bytes of a record.
func head(start pg.LSN, record ...byte) []byte {
	b := make([]byte, longHeaderSize, pg.BlockSize)
	le.PutUint16(b, 0xD110)
	le.PutUint16(b[2:], pageLong)
	le.PutUint32(b[4:], 1)
	le.PutUint64(b[8:], uint64(start))
	le.PutUint64(b[24:], 42)
	le.PutUint32(b[32:], 1<<20)
	le.PutUint32(b[36:], pg.BlockSize)
	return append(b, record...)
}

// TestMemory feeds the beginning of a record that says it has 1 GiB.
func TestMemory(t *testing.T) {
	const start = 1 << 20
	s := New(Options{SegmentSize: 1 << 20, Start: start})
	b := head(start)
	rec := make([]byte, pg.BlockSize-longHeaderSize)
	le.PutUint32(rec, maxRecordSize)
	if err := s.Feed(append(b, rec...), nil); err != nil {
		t.Fatal(err)
	}
	if got := cap(s.buf); got > 2*pg.BlockSize {
		t.Errorf("%d bytes kept for %d that arrived", got, len(rec))
	}
	fed := len(rec)
	for page := pg.LSN(start + pg.BlockSize); page < start+64*pg.BlockSize; page += pg.BlockSize {
		h := make([]byte, pg.BlockSize)
		le.PutUint16(h, 0xD110)
		le.PutUint16(h[2:], pageContinues)
		le.PutUint32(h[4:], 1)
		le.PutUint64(h[8:], uint64(page))
		le.PutUint32(h[16:], uint32(maxRecordSize-fed))
		if err := s.Feed(h, nil); err != nil {
			t.Fatal(err)
		}
		fed += pg.BlockSize - shortHeaderSize
		if len(s.buf) != fed || cap(s.buf) > 2*fed+1024 {
			t.Fatalf("%d bytes kept, of %d, for %d that arrived", len(s.buf), cap(s.buf), fed)
		}
	}
}

// TestUnexpectedContinuation has a page continue a record where none is unfinished.
func TestUnexpectedContinuation(t *testing.T) {
	s := New(Options{SegmentSize: 1 << 20, Start: 1 << 20})
	var bad *CorruptError
	if err := s.continuePage(2<<20, pageContinues, 8); !errors.As(err, &bad) || bad.LSN != 2<<20 {
		t.Errorf("error is %v", err)
	}
	s = New(Options{SegmentSize: 1 << 20, Start: 1 << 20})
	if err := s.continuePage(1<<20, pageContinues, 0); !errors.As(err, &bad) || bad.LSN != 1<<20 {
		t.Errorf("error is %v", err)
	}
}

// recordOf is a record with the body given, whose CRC is right.
func recordOf(info uint8, rmgr RmgrID, prev pg.LSN, body []byte) []byte {
	b := make([]byte, recordHeaderSize, recordHeaderSize+len(body)+8)
	le.PutUint32(b, uint32(recordHeaderSize+len(body)))
	le.PutUint32(b[4:], 7)
	le.PutUint64(b[8:], uint64(prev))
	b[16], b[17] = info, uint8(rmgr)
	b = append(b, body...)
	le.PutUint32(b[recordCRCOffset:], checksum(b))
	return b
}

// TestImageFlags reads one block image by the rules of both ages.
func TestImageFlags(t *testing.T) {
	body := func(info byte, hole bool) []byte {
		b := []byte{0, blockHasImage, 0, 0, 4, 0, 0, 1, info}
		if hole {
			b = append(b, 9, 9)
		}
		b = append(b, make([]byte, 16)...)
		return append(b, 1, 2, 3, 4)
	}
	for _, c := range []struct {
		major int
		info  byte
		hole  bool // its length is there
		apply bool
	}{
		{13, 0x04, false, true},
		{13, 0x01, false, false},
		{14, 0x03, true, false},
		{14, 0x07, true, true},
		{15, 0x02, false, true},
		{15, 0x01, false, false},
		{15, 0x05, true, false},
		{16, 0x0B, true, true},
		{18, 0x13, true, true},
		{18, 0x04, false, false},
	} {
		s := &Scanner{major: c.major}
		s.imageApply, s.imageCompressed = imageFlags(c.major)
		if reason := s.decode(recordOf(0, RmgrHeap, 0, body(c.info, c.hole))); reason != "" {
			t.Errorf("%d, image info %02X: %s", c.major, c.info, reason)
			continue
		}
		if b := s.rec.Blocks[0]; !b.HasImage || b.ApplyImage != c.apply || b.ImageLen != 4 {
			t.Errorf("%d, image info %02X: %+v", c.major, c.info, b)
		}
	}
}

// TestTopXID: what release 14 began to write is not to be in WAL of 13.
func TestTopXID(t *testing.T) {
	rec := recordOf(0, RmgrHeap, 0, []byte{idToplevelXID, 5, 0, 0, 0, idOrigin, 6, 0, idDataShort, 1, 9})
	for _, c := range []struct {
		major int
		want  string
	}{{13, "unknown block ID"}, {14, ""}} {
		s := &Scanner{major: c.major}
		if got := s.decode(rec); got != c.want {
			t.Errorf("%d: %q, want %q", c.major, got, c.want)
		}
		if c.want == "" && (s.rec.TopXID != 5 || s.rec.Origin != 6 || len(s.rec.Main) != 1) {
			t.Errorf("%d: %+v", c.major, s.rec)
		}
	}
}

func TestCustomRmgr(t *testing.T) {
	for _, c := range []struct {
		major int
		id    RmgrID
		want  bool
	}{{13, 21, true}, {18, 22, false}, {14, 128, false}, {15, 128, true}, {18, 255, true}} {
		if got := c.id.valid(c.major); got != c.want {
			t.Errorf("resource manager %d in %d: %t", c.id, c.major, got)
		}
	}
	if got := RmgrID(128).String(); got != "custom128" {
		t.Error(got)
	}
}

// TestSuperDelete: a row put in on trial and taken back.
func TestSuperDelete(t *testing.T) {
	for _, c := range []struct {
		flags byte
		want  HeapOp
	}{{0, HeapOp{Deleted: 1}}, {heapDeleteIsSuper, HeapOp{Retracted: 1}}} {
		r := Record{Rmgr: RmgrHeap, Info: heapDelete, Major: 15, Blocks: make([]BlockRef, 1), Main: []byte{0, 0, 0, 0, 1, 0, 0, c.flags}}
		if got, ok, err := r.HeapOp(); !ok || err != nil || got != c.want {
			t.Errorf("flags %02X: %+v, %t, %v", c.flags, got, ok, err)
		}
	}
}

// TestClearsVisibility: an update names its old page second, and only if it is another.
func TestClearsVisibility(t *testing.T) {
	main := func(at int, flags byte) []byte {
		b := make([]byte, 14)
		b[at] = flags
		return b
	}
	for _, c := range []struct {
		rmgr   RmgrID
		info   uint8
		blocks int
		main   []byte
		want   uint8
	}{
		{RmgrHeap, heapInsert, 1, main(2, 1), 1},
		{RmgrHeap, heapInsert, 1, main(2, 0xFE), 0},
		{RmgrHeap, heapDelete, 1, main(7, 1), 1},
		{RmgrHeap, heapLock, 1, main(7, 1), 1},
		{RmgrHeap2, heap2LockUpdated, 1, main(7, 1), 1},
		{RmgrHeap2, heap2MultiInsert | 0x80, 1, main(0, 1), 1},
		{RmgrHeap, heapUpdate, 2, main(7, 1), 2},
		{RmgrHeap, heapUpdate, 2, main(7, 2), 1},
		{RmgrHeap, heapUpdate | 0x80, 2, main(7, 3), 3},
		{RmgrHeap, heapHotUpdate, 1, main(7, 1), 1},
		{RmgrHeap, heapHotUpdate, 1, main(7, 3), 1},
		{RmgrHeap, heapDelete, 0, main(7, 1), 0},
		{RmgrHeap, heapDelete, 1, main(7, 1)[:7], 0},
		{RmgrHeap, heapTruncate, 1, main(7, 1), 0},
		{RmgrHeap2, 0x40, 2, main(7, 1), 0},
		{RmgrBtree, heapDelete, 1, main(7, 1), 0},
	} {
		r := Record{Rmgr: c.rmgr, Info: c.info, Blocks: make([]BlockRef, c.blocks), Main: c.main}
		if got := r.ClearsVisibility(); got != c.want {
			t.Errorf("%s %02X with flags %v: %02b, want %02b", c.rmgr, c.info, c.main, got, c.want)
		}
	}
}

// TestShortData: each decoder says so when a record's data is cut off.
func TestShortData(t *testing.T) {
	for _, c := range []struct {
		rmgr RmgrID
		info uint8
		min  int // bytes that it needs
	}{
		{RmgrXLOG, xlogCheckpointOnline, 84},
		{RmgrXLOG, xlogRestorePoint, 72},
		{RmgrXLOG, xlogParameterChange, 26},
		{RmgrXLOG, xlogEndOfRecovery, 16},
		{RmgrXLOG, xlogBackupEnd, 8},
		{RmgrXLOG, xlogFPWChange, 1},
		{RmgrXLOG, xlogOverwriteContrecord, 16},
		{RmgrTransaction, xactCommit, 8},
		{RmgrTransaction, xactAbort | xactHasInfo, 12},
		{RmgrTransaction, xactPrepare, 72},
		{RmgrStorage, smgrCreate, 16},
		{RmgrStorage, smgrTruncate, 20},
		{RmgrDatabase, databaseCreate, 16},
		{RmgrDatabase, databaseDrop15, 8},
		{RmgrTablespace, tablespaceCreate, 5},
		{RmgrTablespace, tablespaceDrop, 4},
		{RmgrRelMap, relmapUpdate, 20},
		{RmgrTransaction, xactAssignment, 8},
		{RmgrStandby, standbyRunningXacts, 20},
		{RmgrHeap, heapDelete, 8},
		{RmgrHeap2, heap2MultiInsert, 4},
		{RmgrHeap, heapTruncate, 12},
	} {
		for n := range c.min + 1 {
			r := Record{Rmgr: c.rmgr, Info: c.info, Major: 15, Blocks: make([]BlockRef, 1), Main: make([]byte, n)}
			decoded, err := decodeAll(&r)
			wantErr := n < c.min
			if c.rmgr == RmgrTransaction && c.info == xactPrepare {
				wantErr = true // its name is missing even then
			}
			if decoded != 1 || (err != nil) != wantErr {
				t.Errorf("%s %02X with %d bytes: %d decoders, error %v", c.rmgr, c.info, n, decoded, err)
			}
		}
	}
}

// decodeAll asks every decoder, and counts those that know the record.
func decodeAll(r *Record) (n int, err error) {
	note := func(ok bool, e error) {
		if ok {
			n++
		}
		err = errors.Join(err, e)
	}
	_, ok, e := r.Xact()
	note(ok, e)
	_, ok, e = r.Checkpoint()
	note(ok, e)
	_, ok, e = r.RestorePoint()
	note(ok, e)
	_, ok, e = r.ParameterChange()
	note(ok, e)
	_, ok, e = r.EndOfRecovery()
	note(ok, e)
	_, ok, e = r.BackupEnd()
	note(ok, e)
	_, ok, e = r.FullPageWriteChange()
	note(ok, e)
	_, ok, e = r.OverwriteContrecord()
	note(ok, e)
	_, ok, e = r.SmgrCreate()
	note(ok, e)
	_, ok, e = r.SmgrTruncate()
	note(ok, e)
	_, ok, e = r.DatabaseCreate()
	note(ok, e)
	_, ok, e = r.DatabaseDrop()
	note(ok, e)
	_, ok, e = r.TablespaceCreate()
	note(ok, e)
	_, ok, e = r.TablespaceDrop()
	note(ok, e)
	_, ok, e = r.RelMapUpdate()
	note(ok, e)
	_, ok, e = r.HeapOp()
	note(ok, e)
	_, ok, e = r.HeapTruncate()
	note(ok, e)
	_, _, ok, e = r.Assignment()
	note(ok, e)
	_, _, ok, e = r.RunningXacts()
	note(ok, e)
	r.ClearsVisibility()
	return n, err
}

// FuzzRecord decodes records of any content: behind a right CRC may be anything.
func FuzzRecord(f *testing.F) {
	f.Add(uint8(15), uint8(0x80), uint8(RmgrTransaction), []byte{idDataShort, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0xFF, 1, 0, 0})
	f.Add(uint8(13), uint8(0x10), uint8(RmgrTransaction), append([]byte{idDataShort, 64}, make([]byte, 64)...))
	f.Add(uint8(18), uint8(0x00), uint8(RmgrHeap), []byte{0, blockHasData, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, idDataShort, 1, 9, 8})
	f.Fuzz(func(t *testing.T, major, info, rmgr uint8, body []byte) {
		s := &Scanner{major: 13 + int(major%6)}
		s.imageApply, s.imageCompressed = imageFlags(s.major)
		if s.decode(recordOf(info, RmgrID(rmgr), 0, body)) != "" {
			return
		}
		s.rec.Major = s.major
		if n, _ := decodeAll(&s.rec); n > 1 {
			t.Errorf("%d decoders take %s %02X for theirs", n, s.rec.Rmgr, s.rec.Info)
		}
	})
}
