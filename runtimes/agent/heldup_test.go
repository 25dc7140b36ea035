// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
)

func TestHeldUp(t *testing.T) {
	now := time.Date(2023, 4, 17, 19, 0, 0, 0, time.UTC)
	j := &job{held: heldUp{clock: func() time.Time { return now }}}
	full, away := fmt.Errorf("put a: %w", blob.ErrNoSpace), fmt.Errorf("put a: %w", blob.ErrUnreachable)
	copying := func(done int64) basebackup.Progress { return basebackup.Progress{Phase: "copying", Done: done} }
	check := func(step string, why error, d time.Duration) {
		t.Helper()
		if spent, err := j.held.told(); !errors.Is(err, why) || spent != d {
			t.Errorf("%s: held up by %v for %s, want %v for %s", step, err, spent, why, d)
		}
	}
	j.look(copying(1), nil)
	check("it goes on", nil, 0)
	j.held.by(away)
	now = now.Add(time.Minute)
	j.held.by(full)
	j.look(copying(1), nil)
	check("it stands, for another reason by now", full, time.Minute)
	j.look(copying(2), away)
	check("it went on, and the archive is not waited for", nil, 0)
	waits := basebackup.Progress{Phase: waitsForWAL, Done: 2}
	j.look(waits, away)
	now = now.Add(time.Hour)
	j.look(waits, away)
	check("the archive is waited for", away, time.Hour)
	j.look(waits, nil)
	check("the archive goes on", nil, 0)
}

// TestWhyItFailed: who waits for a backup learns of its reason what exit code it has.
func TestWhyItFailed(t *testing.T) {
	p := &Protector{cfg: Config{Clock: time.Now}}
	for _, c := range []struct {
		err  error
		want string
	}{
		{tooLong(&repository.LockedError{Holder: "db1"}, 2*time.Minute), "RepositoryLocked"},
		{fmt.Errorf("put a: %w", blob.ErrNoSpace), "StorageFull"},
		{fmt.Errorf("put a: %w", blob.ErrDenied), "StorageDenied"},
		{&repository.MismatchError{}, "AnotherServer"},
		{context.DeadlineExceeded, "BackupFailed"},
	} {
		b := &v1alpha1.Backup{}
		p.failed(b, c.err)
		if b.Status.Reason != c.want || b.Status.FailureReason != c.err.Error() || b.Status.Phase != v1alpha1.BackupFailed {
			t.Errorf("%v: %+v, want %s", c.err, b.Status, c.want)
		}
	}
}
