// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// heldUpLimit is how long a backup may be held up before it has failed. Whoever waits
// for it is told then, and the server does not stay in backup mode.
const heldUpLimit = 15 * time.Minute

// heldUp is what keeps a backup from going on, and since when. It is safe for use by
// many goroutines.
type heldUp struct {
	clock func() time.Time

	mu    sync.Mutex
	why   error // nil while it goes on
	since time.Time
}

// by notes what holds the backup up now; nil is nothing.
func (h *heldUp) by(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.why, h.since = nil, time.Time{}
		return
	}
	if h.why == nil {
		h.since = h.clock()
	}
	h.why = err
}

// told gives for how long it has been held up, and by what.
func (h *heldUp) told() (time.Duration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why == nil {
		return 0, nil
	}
	return h.clock().Sub(h.since), h.why
}

// under lets h hear of each failure that the storage is asked again after.
func (h *heldUp) under(ctx context.Context) context.Context {
	return blob.WithNotice(ctx, func(e blob.RetryEvent) { h.by(e.Err) })
}

// moved tells whether work went on between two looks at it.
func moved(was, is basebackup.Progress) bool {
	return was.Phase != is.Phase || was.Done != is.Done || was.Stored != is.Stored
}

// waitsForWAL is the phase of a backup in which the Archiver is at work for it.
const waitsForWAL = "waiting for WAL"

// look notes in j how far it is. What is waited for in a phase that only waits for the
// Archiver is what holds that one up, and a standby that is silent holds up any.
func (j *job) look(x basebackup.Progress, archiver error) {
	j.mu.Lock()
	silent := j.silent
	j.mu.Unlock()
	if moved(j.seen, x) {
		j.seen = x
		j.held.by(nil)
	}
	switch {
	case silent != nil:
		j.held.by(silent)
	case x.Phase == "" || x.Phase == waitsForWAL:
		j.held.by(archiver)
	}
}

// tooLong is the error of a backup that was held up for longer than the limit.
func tooLong(why error, d time.Duration) error {
	return fmt.Errorf("it was held up for %s: %w", d.Round(time.Second), why)
}

// waits tells a Backup that cannot begin why, and ends it when that has lasted too long.
func (p *Protector) waits(ctx context.Context, next *v1alpha1.Backup, why error) error {
	if next == nil || ctx.Err() != nil {
		return why
	}
	if p.waiting.name != next.Name {
		p.waiting = waiting{name: next.Name, since: p.cfg.Clock()}
	}
	limit := heldUpLimit
	var locked *repository.LockedError
	if errors.As(why, &locked) {
		limit = 2 * lockLife // for as long as a holder that died is waited for
	}
	d := p.cfg.Clock().Sub(p.waiting.since)
	b, err := store.MutateStatus(ctx, p.cfg.Objects, next.Namespace, next.Name, func(b *v1alpha1.Backup) error {
		if d >= limit {
			p.failed(b, tooLong(why, d))
			return nil
		}
		if b.Status.Progress == nil {
			b.Status.Progress = &v1alpha1.Progress{Phase: "waiting", StartedAt: metav1.NewTime(p.cfg.Clock())}
		}
		b.Status.Progress.Message = oneLine(why)
		return nil
	})
	if apierrors.IsNotFound(err) {
		err = nil
	} else if err == nil && b.Status.Phase == v1alpha1.BackupFailed {
		p.tellBackup(b)
	}
	return errors.Join(why, err)
}

// waiting is the Backup that cannot begin.
type waiting struct {
	name  string
	since time.Time
}

// failed notes in a Backup why it failed.
func (p *Protector) failed(b *v1alpha1.Backup, err error) {
	s := &b.Status
	s.Progress = nil
	s.CompletionTimestamp = metav1.NewTime(p.cfg.Clock())
	s.Phase, s.FailureReason = v1alpha1.BackupFailed, err.Error()
	if s.Reason, _ = checkup.Explain(err, checkup.Names{}); s.Reason == "ArchivingFailed" {
		s.Reason = "BackupFailed" // nothing more is known of it
	}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
