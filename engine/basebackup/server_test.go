// SPDX-License-Identifier: Apache-2.0

package basebackup_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
)

// TestAnotherServersDirectory gives one server's data directory for another's.
func TestAnotherServersDirectory(t *testing.T) {
	asked, other := testpg.Start(t, testpg.Options{}), testpg.Start(t, testpg.Options{})
	ctx := t.Context()
	repo, err := repository.Create(ctx, mem.New(time.Now), repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Connect(ctx, asked.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id, err := c.Identify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lineage := func(system pg.SystemID) *repository.Lineage {
		l, err := repo.CreateLineage(ctx, repository.LineageInfo{
			Namespace: "default", Cluster: "c", SystemID: system, Major: id.Version.Major(), SegmentSize: id.SegmentSize,
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	take := func(l *repository.Lineage, dir string) error {
		_, err := basebackup.Take(ctx, basebackup.Config{
			Lineage: l, Conninfo: asked.ConnString("postgres"), DataDirectory: dir, Name: "b1", Fast: true, Workers: 1,
			WaitWAL: func(context.Context, pg.TimelineID, pg.LSN) error { return errors.New("nothing is archived") },
			Clock:   time.Now, Log: slog.New(slog.DiscardHandler),
		})
		folders, ferr := l.BackupFolders(ctx)
		if ferr != nil || len(folders) > 0 {
			t.Errorf("the repository has %q, %v", folders, ferr)
		}
		return err
	}
	var wrong *basebackup.WrongServerError
	if err := take(lineage(id.SystemID), other.DataDir); !errors.As(err, &wrong) || wrong.DataDirectory != other.DataDir {
		t.Errorf("another server's data directory: %v", err)
	}
	var mismatch *repository.MismatchError
	if err := take(lineage(id.SystemID+1), asked.DataDir); !errors.As(err, &mismatch) {
		t.Errorf("another server's lineage: %v", err)
	}
}
