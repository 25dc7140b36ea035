// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// state is what is said of a cluster.
type state struct {
	phase           v1alpha1.ClusterPhase
	reason, message string
}

// judge says how a cluster stands, in one word and a sentence. It is pure.
func (s *seen) judge() state {
	was, st := s.cluster.Status.Phase, s.cluster.Status
	if s.restoreFailed() {
		return state{v1alpha1.ClusterFailed, nonEmpty(st.Reason, "RestoreFailed"), st.Restore.Message}
	}
	if s.cluster.Spec.Stopped {
		if len(s.pods) > 0 {
			return state{v1alpha1.ClusterStopping, "", ""}
		}
		return state{v1alpha1.ClusterStopped, "", ""}
	}
	if s.restoring() {
		return state{v1alpha1.ClusterRestoring, "", s.trouble()}
	}
	primary, want := s.primary(), s.cluster.Spec.Replicas
	serves := primary != nil && ready(primary) && !s.heldUp(lateAfter)
	anew := v1alpha1.ClusterUpdating
	if wish := s.cluster.Annotations[v1alpha1.AnnotationRestart]; wish != "" && wish != st.RestartedAt {
		anew = v1alpha1.ClusterRestarting
	}
	switch whole := s.ready() == want && int32(len(s.pods)) == want; {
	case s.rolling(), serves && whole && s.unsettled():
		return state{anew, "", s.trouble()}
	case serves && whole:
		reason, words := s.room()
		return state{v1alpha1.ClusterRunning, reason, words}
	case was == "" || was == v1alpha1.ClusterCreating:
		return state{v1alpha1.ClusterCreating, s.word(""), s.trouble()}
	case was == v1alpha1.ClusterRestoring:
		return state{v1alpha1.ClusterRestoring, "", s.trouble()}
	case was == v1alpha1.ClusterStopped, was == v1alpha1.ClusterStopping, was == v1alpha1.ClusterStarting:
		return state{v1alpha1.ClusterStarting, s.word(""), s.trouble()}
	case was == v1alpha1.ClusterRestarting, was == v1alpha1.ClusterUpdating:
		return state{was, s.word(""), s.trouble()}
	case serves && int32(len(s.pods)) != want:
		return state{v1alpha1.ClusterUpdating, "Scaling", fmt.Sprintf("there are %d servers of %d", len(s.pods), want)}
	case serves:
		return state{v1alpha1.ClusterAbnormal, "ServersMissing", fmt.Sprintf("%d of %d servers serve: %s", s.ready(), want, nonEmpty(s.trouble(), "the others have not said why"))}
	}
	return state{v1alpha1.ClusterAbnormal, s.word("NoPrimary"), "no server takes writes: " + nonEmpty(s.trouble(), "Patroni has not chosen one yet")}
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// word is why a pod does not serve, in one; otherwise where none says.
func (s *seen) word(otherwise string) string {
	if reason, _ := s.room(); reason == "VolumeFull" {
		return reason
	}
	for i := range s.pods {
		if reason, _ := whyNot(&s.pods[i]); reason != "" {
			return reason
		}
	}
	return otherwise
}

// trouble says of each pod that does not serve why, as far as Kubernetes knows.
func (s *seen) trouble() string {
	var out []string
	if _, words := s.room(); words != "" {
		out = append(out, words)
	}
	if s.heldUp(lateAfter) {
		out = append(out, s.primary().Name+": it is to be the primary, and its server has not left recovery")
	}
	for i := range s.pods {
		p := &s.pods[i]
		if _, words := whyNot(p); words != "" {
			out = append(out, p.Name+": "+words)
		}
	}
	for i := range s.claims {
		if c := &s.claims[i]; c.Status.Phase == core.ClaimLost {
			out = append(out, "volume "+c.Name+" is lost")
		}
	}
	return strings.Join(out, "; ")
}

// hopeless are the reasons of a waiting container that do not pass by themselves.
var hopeless = []string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"}

// whyNot says why a pod does not serve; empty while it is only on its way.
func whyNot(p *core.Pod) (reason, words string) {
	if ready(p) || p.DeletionTimestamp != nil {
		return "", ""
	}
	for _, c := range p.Status.Conditions {
		if c.Type == core.PodScheduled && c.Status == core.ConditionFalse {
			return nonEmpty(c.Reason, "Unschedulable"), nonEmpty(c.Message, "no node takes it")
		}
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && slices.Contains(hopeless, w.Reason) {
			text := w.Message
			if t := c.LastTerminationState.Terminated; t != nil && strings.TrimSpace(t.Message) != "" {
				text = lastLine(t.Message)
			}
			return w.Reason, fmt.Sprintf("container %s: %s", c.Name, nonEmpty(text, w.Reason))
		}
		if t := c.LastTerminationState.Terminated; t != nil && t.Reason == "OOMKilled" {
			return t.Reason, fmt.Sprintf("container %s was ended because it used all of its memory", c.Name)
		}
	}
	if p.Status.Phase == core.PodFailed {
		return nonEmpty(p.Status.Reason, "PodFailed"), nonEmpty(p.Status.Message, "the pod failed")
	}
	return "", ""
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
