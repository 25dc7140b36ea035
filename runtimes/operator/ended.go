// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// endings remembers which ends of containers were told. It is safe for use by many
// goroutines.
type endings struct {
	mu   sync.Mutex
	told map[types.UID]map[types.UID]map[string]int32 // of a cluster's pods: restarts of each container
}

// recent is how old an end may be that happened before this operator began.
const recent = time.Minute

// fresh lists the containers of a cluster's pods that ended and started again, and were
// not listed before.
func (e *endings) fresh(cluster types.UID, pods []core.Pod, now time.Time) []ending {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.told == nil {
		e.told = map[types.UID]map[types.UID]map[string]int32{}
	}
	before := e.told[cluster]
	e.told[cluster] = map[types.UID]map[string]int32{}
	var out []ending
	for i := range pods {
		p := &pods[i]
		was := before[p.UID]
		is := map[string]int32{}
		for _, c := range p.Status.ContainerStatuses {
			is[c.Name] = c.RestartCount
			t := c.LastTerminationState.Terminated
			if t == nil || c.RestartCount <= was[c.Name] || was == nil && now.Sub(t.FinishedAt.Time) > recent {
				continue
			}
			out = append(out, ending{p.Name, c.Name, t})
		}
		e.told[cluster][p.UID] = is
	}
	return out
}

// forget is for a cluster that is gone.
func (e *endings) forget(cluster types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.told, cluster)
}

// ending is a container's.
type ending struct {
	pod, container string
	how            *core.ContainerStateTerminated
}

func (e ending) words() (reason, text string) {
	reason, what := "ServerEnded", "the container of PostgreSQL"
	if e.container == names.ContainerAgent {
		reason, what = "AgentEnded", "the agent"
	}
	why := fmt.Sprintf("ended with exit code %d", e.how.ExitCode)
	switch {
	case e.how.Reason == "OOMKilled":
		why = "was ended by the kernel because it used all of its memory"
	case e.how.ExitCode == 137:
		why = "was killed"
	}
	return reason, fmt.Sprintf("%s of %s %s, and is started again; next: kubectl logs %s -c %s --previous", what, e.pod, why, e.pod, e.container)
}

// tellEndings tells in a cluster's events which containers ended by themselves.
func (l *clusterLoop) tellEndings(c *v1alpha1.Cluster, pods []core.Pod) {
	for _, e := range l.endings.fresh(c.UID, pods, l.clock()) {
		reason, text := e.words()
		l.event(c, runtimes.EventWarning, reason, text)
	}
}
