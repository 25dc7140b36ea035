// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An end is told once, also where the operator begins after it; an old one is not.
func TestEndings(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pod := func(restarts int32, reason string, code int32, ago time.Duration) []core.Pod {
		p := core.Pod{ObjectMeta: metav1.ObjectMeta{Name: "c-postgresql-0", UID: "u"}}
		s := core.ContainerStatus{Name: "kbcli", RestartCount: restarts}
		if restarts > 0 {
			s.LastTerminationState.Terminated = &core.ContainerStateTerminated{Reason: reason, ExitCode: code, FinishedAt: metav1.NewTime(now.Add(-ago))}
		}
		p.Status.ContainerStatuses = []core.ContainerStatus{s, {Name: "postgresql"}}
		return []core.Pod{p}
	}
	const next = ", and is started again; next: kubectl logs c-postgresql-0 -c kbcli --previous"
	for name, test := range map[string]struct {
		seen [][]core.Pod
		want []string
	}{
		"nothing ended":         {[][]core.Pod{pod(0, "", 0, 0)}, nil},
		"for want of memory":    {[][]core.Pod{pod(0, "", 0, 0), pod(1, "OOMKilled", 137, 0), pod(1, "OOMKilled", 137, 0)}, []string{"AgentEnded: the agent of c-postgresql-0 was ended by the kernel because it used all of its memory" + next}},
		"killed, twice":         {[][]core.Pod{pod(1, "Error", 137, time.Hour), pod(2, "Error", 137, 0)}, []string{"AgentEnded: the agent of c-postgresql-0 was killed" + next}},
		"before this operator":  {[][]core.Pod{pod(1, "Error", 3, time.Second)}, []string{"AgentEnded: the agent of c-postgresql-0 ended with exit code 3" + next}},
		"an hour before it":     {[][]core.Pod{pod(7, "Error", 3, time.Hour)}, nil},
		"the pod was made anew": {[][]core.Pod{pod(7, "Error", 3, time.Hour), nil, pod(0, "", 0, 0)}, nil},
	} {
		var e endings
		var got []string
		for _, pods := range test.seen {
			for _, x := range e.fresh("c", pods, now) {
				reason, text := x.words()
				got = append(got, reason+": "+text)
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}
