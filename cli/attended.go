// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes"
)

// reasonUnattended is the reason of a status that nobody keeps true.
const reasonUnattended = "AgentNotRunning"

// attended tells whether an agent keeps the status of objects true. Where that cannot be
// told it does.
func (a *app) attended(ctx context.Context) (running bool, seen time.Time) {
	w, ok := a.rt.(runtimes.Attended)
	if !ok {
		return true, time.Time{}
	}
	running, seen, err := w.Attended(ctx)
	return running || err != nil, seen
}

// doubt takes from clusters what their status claims of the present, if no agent runs.
// Who is being deleted, and who has no status yet, claims nothing.
func (a *app) doubt(ctx context.Context, clusters ...*v1alpha1.Cluster) {
	running, seen := a.attended(ctx)
	if running {
		return
	}
	message := "the agent does not run: what follows was true when it did"
	if !seen.IsZero() {
		message = "the agent does not run: what follows was true at " + humantime.FormatSeconds(seen, a.zone)
	}
	message += "; next: kbcli agent restart"
	for _, c := range clusters {
		s := &c.Status
		if c.DeletionTimestamp != nil || s.Phase == "" {
			continue
		}
		if s.Phase != v1alpha1.ClusterFailed && s.Phase != v1alpha1.ClusterStopped {
			s.Phase = v1alpha1.ClusterUnknown
		}
		s.Reason, s.Message = reasonUnattended, message
		if s.Archive != nil {
			s.Archive.State = v1alpha1.ArchiveStopped
		}
		for i := range s.Conditions {
			d := &s.Conditions[i]
			if d.Type == v1alpha1.ConditionArchiving {
				d.Status = metav1.ConditionFalse
			} else {
				d.Status = metav1.ConditionUnknown
			}
			d.Reason, d.Message = reasonUnattended, "the agent does not run; next: kbcli agent restart"
		}
	}
}
