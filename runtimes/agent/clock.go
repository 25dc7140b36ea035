// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// A clock that jumps years ahead would end every promise at once. So the last moment
// that was believed is noted, and one that lies more than a day after it is believed
// only when it has stood for a day: a machine that was off waits a day with letting go,
// and somebody has a day to see that a clock is wrong.
const (
	clockLeap  = 24 * time.Hour
	clockDoubt = 24 * time.Hour
	clockNote  = time.Hour // how often what is believed is written down
)

// AnnotationClock is on the object whose owner lets things go, and holds the last
// moment that was believed and, in doubt, when the doubt began.
const AnnotationClock = "dataprotection.kubeblocks.io/expiry-clock"

// ClockError says why a clock is not believed.
type ClockError struct {
	Now      time.Time
	Believed time.Time // the last moment before
	Until    time.Time // when it will be, by the same clock; zero: not by itself
}

func (e *ClockError) Error() string {
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	if e.Until.IsZero() {
		return fmt.Sprintf("the clock of this machine says %s, and the server's said %s a moment ago", stamp(e.Now), stamp(e.Believed))
	}
	return fmt.Sprintf("the clock moved from %s to %s at once: if that is right, it is believed from %s on", stamp(e.Believed), stamp(e.Now), stamp(e.Until))
}

// BelieveClock judges a clock by the note of the last time, and gives the note for the
// next. An empty note believes.
func BelieveClock(note string, now time.Time) (string, error) {
	now = now.UTC().Truncate(time.Second)
	stamp := func(t time.Time) string { return t.Format(time.RFC3339) }
	first, second, doubted := strings.Cut(note, " ")
	believed, err := time.Parse(time.RFC3339, first)
	if err != nil {
		return stamp(now), nil
	}
	if now.Sub(believed) <= clockLeap {
		if !doubted && now.Sub(believed) >= 0 && now.Sub(believed) < clockNote {
			return note, nil
		}
		return stamp(now), nil
	}
	since, err := time.Parse(time.RFC3339, second)
	switch {
	case err != nil || since.After(now) || now.Sub(since) > clockDoubt+clockLeap:
		since = now // it leapt again, or nobody looked meanwhile
	case now.Sub(since) >= clockDoubt:
		return stamp(now), nil
	}
	return stamp(believed) + " " + stamp(since), &ClockError{Now: now, Believed: believed, Until: since.Add(clockDoubt)}
}

// believe is a *ClockError where the clock is not to be believed.
func (p *Protector) believe(ctx context.Context, now time.Time) error {
	if p.arch != nil && p.last.archive != nil && p.last.archive.State == v1alpha1.ArchiveStreaming {
		// what an idle server's clock says is asked at least once an hour
		if proven := p.last.archive.ProvenTime.Time; !proven.IsZero() && now.Sub(proven) > clockLeap {
			return &ClockError{Now: now, Believed: proven}
		}
	}
	have := p.policy.Annotations[AnnotationClock]
	want, refusal := BelieveClock(have, now)
	if want == have {
		return refusal
	}
	_, err := store.Mutate(ctx, p.cfg.Objects, p.policy.Namespace, p.policy.Name, func(o *v1alpha1.BackupPolicy) error {
		if o.Annotations == nil {
			o.Annotations = map[string]string{}
		}
		o.Annotations[AnnotationClock] = want
		return nil
	})
	if err != nil {
		return err
	}
	return refusal
}
