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
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/internal/testrepo"
)

// TestAnotherServersDirectory gives one server's data directory for another's.
func TestAnotherServersDirectory(t *testing.T) {
	asked, other := testpg.Start(t, testpg.Options{}), testpg.Start(t, testpg.Options{})
	ctx := t.Context()
	info := testrepo.Info(t, asked)
	lineage := func(system pg.SystemID) *repository.Lineage {
		i := info
		i.SystemID = system
		_, l := testrepo.New(t, mem.New(time.Now), repository.Options{}, i)
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
	if err := take(lineage(info.SystemID), other.DataDir); !errors.As(err, &wrong) || wrong.DataDirectory != other.DataDir {
		t.Errorf("another server's data directory: %v", err)
	}
	var mismatch *repository.MismatchError
	if err := take(lineage(info.SystemID+1), asked.DataDir); !errors.As(err, &mismatch) {
		t.Errorf("another server's lineage: %v", err)
	}
}
