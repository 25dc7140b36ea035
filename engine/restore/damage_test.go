// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/blob/s3"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/internal/tests3"
)

// TestDamage flips one bit in an object of each kind: it is named, and nothing is
// restored from it.
func TestDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	store, err := fs.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, testpg.Start(t, testpg.Options{}), store)
	r.startArchiving(t)
	r.backup(t, "b1")
	r.server.Exec(t, "create table t as select generate_series(1, 1000) as id")
	r.server.Exec(t, "select pg_switch_wal()")
	r.server.Exec(t, "insert into t values (1001)")
	at := time.Now()
	r.proven(t, at)
	r.server.Exec(t, "insert into t values (1002)")
	r.proven(t, time.Now())
	r.stopArchiving(t)

	restoreAll := func(t *testing.T) error {
		c, err := catalog.Load(t.Context(), r.lineage)
		if err != nil {
			return err
		}
		p, err := restore.MakePlan(t.Context(), c, catalog.Target{Time: at})
		if err != nil {
			return err
		}
		into, recovery := r.place(t)
		if err := p.Fetch(t.Context(), into); err != nil {
			return err
		}
		_, err = p.Recover(t.Context(), recovery)
		return err
	}
	if err := restoreAll(t); err != nil {
		t.Fatalf("undamaged: %v", err)
	}
	for _, kind := range []string{"/wal/", "/tail/", "/pack/", "/files", "/manifest"} {
		t.Run(strings.Trim(kind, "/"), func(t *testing.T) {
			var path string
			err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
				if strings.Contains(p+"/", kind) && !strings.HasSuffix(p, strings.TrimSuffix(kind, "/")) || strings.HasSuffix(p, kind) {
					if info, serr := os.Stat(p); serr == nil && !info.IsDir() {
						path = p // the last: of WAL and tails what is replayed last
					}
				}
				return err
			})
			if err != nil || path == "" {
				t.Fatalf("no object of this kind: %v", err)
			}
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bad := append([]byte(nil), whole...)
			bad[len(bad)*2/3] ^= 0x10
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(path, whole, 0o600)
			err = restoreAll(t)
			key, rerr := filepath.Rel(dir, path)
			if rerr != nil {
				t.Fatal(rerr)
			}
			if err == nil || !strings.Contains(err.Error(), key) {
				t.Errorf("damage in %s was not named: %v", key, err)
			}
		})
	}
	// an index is made from the WAL again
	index, err := filepath.Glob(filepath.Join(dir, "lineages", "*", "index", "*", "*"))
	if err != nil || len(index) == 0 {
		t.Fatalf("no index: %v", err)
	}
	for _, path := range index {
		if err := os.WriteFile(path, []byte("nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := restoreAll(t); err != nil {
		t.Errorf("without indexes: %v", err)
	}
}

// smallDisk mounts a file system of a few megabytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kbsmall")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0755"); err != nil {
		t.Fatalf("mount a small disk (the tests need root for it): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return dir
}

// TestFullDisk: a full repository fails the backup, too small a target the restore,
// each by its name and before anything is lost.
func TestFullDisk(t *testing.T) {
	server := testpg.Start(t, testpg.Options{})
	server.Exec(t, "create table t as select i, md5(i::text) || md5((i*7)::text) as v from generate_series(1, 200000) i")
	store, err := fs.Create(filepath.Join(smallDisk(t, "6m"), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, server, store)
	r.startArchiving(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = basebackup.Take(ctx, basebackup.Config{
		Lineage: r.lineage, Conninfo: server.ConnString("postgres"), Name: "b1", Fast: true, Workers: 2,
		WaitWAL: r.archiver.Wait, Clock: time.Now, Log: logger(t),
	})
	if !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("backup into a full repository: %v", err)
	}
	manifests, err := r.lineage.Manifests(t.Context())
	if err != nil || len(manifests) > 0 {
		t.Errorf("a backup is listed: %v, %v", manifests, err)
	}
	var n int
	server.QueryRow(t, "select count(*) from t", &n)
	if n != 200000 {
		t.Errorf("the server has %d rows", n)
	}

	whole := newRig(t, server, nil)
	r.stop()
	<-r.done
	whole.startArchiving(t)
	whole.backup(t, "b1")
	whole.proven(t, time.Now())
	p, err := restore.MakePlan(t.Context(), whole.catalog(t), catalog.Target{Latest: true})
	if err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(smallDisk(t, "20m"), "data")
	var room *restore.NoRoomError
	if err := p.Fetch(t.Context(), restore.Into{DataDirectory: small, UID: -1, GID: -1, Jobs: 2}); !errors.As(err, &room) {
		t.Errorf("restore onto too small a disk: %v", err)
	}
	if _, err := os.Stat(small); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}

// TestDeadS3: a store that does not answer is named as that, and is not taken for
// one that is empty.
func TestDeadS3(t *testing.T) {
	srv := tests3.StartTLS(t)
	place, err := s3.Open(t.Context(), s3.Config{
		Endpoint: srv.Endpoint, Region: srv.Region, Bucket: srv.NewBucket(t), CAFile: srv.CAFile, Prefix: "pg",
		AccessKey: srv.AccessKey, SecretKey: s3.NewSecret(srv.SecretKey),
	})
	if err != nil {
		t.Fatal(err)
	}
	store := blob.Retry(place, blob.RetryOptions{MaxElapsed: 2 * time.Second})
	r := newRig(t, testpg.Start(t, testpg.Options{}), store)
	r.startArchiving(t)
	r.backup(t, "b1")
	r.server.Exec(t, "create table t (id int)")
	at := time.Now()
	r.proven(t, at)
	if x := r.restore(t, catalog.Target{Time: at}); x.reached.LSN == 0 {
		t.Error("nothing was reached")
	}

	srv.Stop()
	if _, err := catalog.Load(t.Context(), r.lineage); !errors.Is(err, blob.ErrUnreachable) {
		t.Errorf("catalog without a store: %v", err)
	}
	r.server.Exec(t, "insert into t values (1)")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if st := r.archiver.Status(); errors.Is(st.LastError, blob.ErrUnreachable) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the archiver does not say that the store is away: %+v", r.archiver.Status())
		}
	}
	srv.Restart()
	r.proven(t, time.Now())
	if x := r.restore(t, catalog.Target{Latest: true}); x.reached.LSN == 0 {
		t.Error("nothing was reached")
	} else {
		var n int
		x.QueryRow(t, "select count(*) from t", &n)
		if n != 1 {
			t.Errorf("%d rows after the store came back", n)
		}
	}
	var wrong *repository.CorruptError
	if err := r.archiver.Status().LastError; errors.As(err, &wrong) {
		t.Error(err)
	}
}
