// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"time"

	core "k8s.io/api/core/v1"

	"github.com/kbcli/kbcli/runtimes/operator/room"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// A new primary asks the archive before it opens, for less than a minute; one that has to
// be said is late, one that is hopeless starts better anew.
const (
	lateAfter     = time.Minute
	hopelessAfter = 90 * time.Second
)

// step is one thing to do with a cluster's pods; the next follows when its outcome is
// seen. At most one of the two is set.
type step struct {
	end        string // the pod to end, which comes back anew
	switchover string // the pod that becomes the primary instead of the present one
	why        string
}

// nextStep goes on making pods anew: what does not serve first, then standbys from the
// last, then the primary, which has handed over before. While any pod is on its way
// nothing is done, so that one server at most is away.
func (s *seen) nextStep() step {
	primary := s.primary()
	if s.heldUp(hopelessAfter) && useOf(primary).Level() != room.Full {
		return step{end: primary.Name, why: "it holds the lock of the primary, and its server does not leave recovery"}
	}
	for i := range s.pods {
		p := &s.pods[i]
		if s.stale(p) && !ready(p) && p.DeletionTimestamp == nil {
			return step{end: p.Name, why: "it does not serve, and is made anew"}
		}
	}
	if want := s.size(); want == 0 || int32(len(s.pods)) < want || s.ready() < int32(len(s.pods)) {
		return step{}
	}
	if primary == nil {
		return step{}
	}
	for i := len(s.pods) - 1; i >= 0; i-- {
		if p := &s.pods[i]; p.Name != primary.Name && s.stale(p) {
			return step{end: p.Name, why: "it is made anew"}
		}
	}
	leaves := specs.Ordinal(s.cluster.Name, primary.Name) >= int(s.cluster.Spec.Replicas)
	if !s.stale(primary) && !leaves {
		return step{}
	}
	if next := s.candidate(primary); next != nil {
		return step{switchover: next.Name, why: "the primary " + primary.Name + " is made anew"}
	}
	if leaves {
		return step{}
	}
	if len(s.pods) > 1 {
		return step{} // a standby will catch up
	}
	return step{end: primary.Name, why: "it is made anew"}
}

// candidate is the standby that has the most WAL, of those that stay; nil if none follows
// the primary's timeline.
func (s *seen) candidate(primary *core.Pod) *core.Pod {
	var best *core.Pod
	for i := range s.pods {
		p := &s.pods[i]
		m := memberOf(p)
		if p.Name == primary.Name || !ready(p) || m.State != "running" || m.Timeline != memberOf(primary).Timeline ||
			specs.Ordinal(s.cluster.Name, p.Name) >= int(s.cluster.Spec.Replicas) {
			continue
		}
		if best == nil || m.Position > memberOf(best).Position {
			best = p
		}
	}
	return best
}
