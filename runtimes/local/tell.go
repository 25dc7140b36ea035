// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
)

// tell records an event of the keeper's cluster, or of what belongs to it.
func (k *keeper) tell(object string, t runtimes.EventType, reason, message string) {
	k.r.event(k.namespace, k.name, object, t, reason, "%s", message)
}

func (k *keeper) self() string { return v1alpha1.KindCluster + "/" + k.name }

// tellPhase records what a new phase means, once: also an agent that begins finds the
// phase that was written before.
func (k *keeper) tellPhase(was v1alpha1.ClusterStatus, is v1alpha1.ClusterPhase, reason, message string) {
	if was.Phase == is && was.Reason == reason && was.Message == message {
		return
	}
	if t, word, text, ok := agent.PhaseEvent(was.Phase, is, reason, message); ok {
		k.tell(k.self(), t, word, text)
	}
}

// agentObject is the agent itself, which is no object.
const agentObject = "Agent"

// tellStarted records that the agent begins, and whether it is another release than
// the one before.
func (r *Runtime) tellStarted(ctx context.Context) {
	e := r.happened()
	begun := "version " + cmp.Or(r.version, "devel") + " looks after " + r.state
	before := ""
	past, _, err := readEvents(e.path("", "")) // a past that cannot be read is none
	for _, ev := range past {
		if err == nil && ev.Object == agentObject && ev.Reason == "AgentStarted" {
			before = ev.Message
		}
	}
	r.event("", "", agentObject, runtimes.EventNormal, "AgentStarted", "%s", begun)
	if before != "" && before != begun {
		r.event("", "", agentObject, runtimes.EventNormal, "AgentUpgraded", "before, %s", before)
	}
	if err := r.forgetEvents(ctx); err != nil {
		r.log.Warn("old events stay", "error", err)
	}
}

// tellEnded records that the agent ends.
func (r *Runtime) tellEnded(err error) {
	if err != nil {
		r.event("", "", agentObject, runtimes.EventWarning, "AgentFailed", "%v", err)
		return
	}
	r.event("", "", agentObject, runtimes.EventNormal, "AgentEnded", "servers go on running, and nothing is archived until it begins again")
}
