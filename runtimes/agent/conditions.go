// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
)

// verdict is a condition before it has times.
type verdict struct {
	status          metav1.ConditionStatus
	reason, message string
}

func yes(reason, message string) verdict { return verdict{metav1.ConditionTrue, reason, message} }
func no(reason, message string) verdict  { return verdict{metav1.ConditionFalse, reason, message} }
func unsure(reason, message string) verdict {
	return verdict{metav1.ConditionUnknown, reason, message}
}

// then adds to a sentence what can be pasted.
func then(words, next string) string {
	if next == "" {
		return words
	}
	return words + "; next: " + next
}

// Ready judges by its phase whether a cluster's server takes connections, and notes it
// in the status. Whoever changes the phase calls it.
func Ready(s *v1alpha1.ClusterStatus, generation int64, now time.Time) {
	v := verdict{}
	switch s.Phase {
	case v1alpha1.ClusterRunning:
		v = yes("Running", "the server takes connections")
	case v1alpha1.ClusterAbnormal, v1alpha1.ClusterUnknown, "":
		v = unsure("Unknown", s.Message)
	default:
		v = no(string(s.Phase), s.Message)
		if s.Reason != "" {
			v.reason = s.Reason
		}
	}
	setCondition(s, v1alpha1.ConditionReady, v, generation, now)
}

// setCondition notes a verdict. Its time is that of the last change of the status
// itself.
func setCondition(s *v1alpha1.ClusterStatus, kind string, v verdict, generation int64, now time.Time) {
	c := metav1.Condition{
		Type: kind, Status: v.status, Reason: v.reason, Message: v.message, ObservedGeneration: generation,
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	}
	for i := range s.Conditions {
		old := &s.Conditions[i]
		if old.Type != kind {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		*old = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

// trouble is what holds archiving up, as people are told.
type trouble struct {
	reason, words, next string
}

func troubleOf(err error, n checkup.Names) trouble {
	if err == nil {
		return trouble{}
	}
	t := trouble{words: strings.Join(strings.Fields(err.Error()), " ")}
	t.reason, t.next = checkup.Explain(err, n)
	return t
}

// archiving judges whether what is committed reaches the repository.
func judgeArchiving(a *v1alpha1.ArchiveStatus, wanted bool, t trouble, n checkup.Names) verdict {
	switch {
	case !wanted && a.State == v1alpha1.ArchiveStopped:
		return no("NotEnabled", then("WAL is not archived: the schedule of logfile is not enabled", enable(n)))
	case t.reason != "":
		return no(t.reason, then(t.words, t.next))
	case a.State == v1alpha1.ArchiveStreaming, a.State == v1alpha1.ArchiveGap:
		return yes("Streaming", fmt.Sprintf("WAL goes to the repository %s as it is written", n.Repository))
	case a.State == v1alpha1.ArchiveBlocked:
		return no("SpoolFull", then("the spool is full, and the server keeps its WAL until the repository takes more", "kbcli backuprepo describe "+n.Repository))
	case a.State == v1alpha1.ArchiveConnecting:
		return unsure("Connecting", "a connection to the server is being made")
	}
	return no("Stopped", then("WAL is not archived", fmt.Sprintf("kbcli doctor %s -n %s", n.Cluster, n.Namespace)))
}

func enable(n checkup.Names) string {
	if n.Policy == "" {
		return ""
	}
	return fmt.Sprintf("kbcli cluster edit-backup-policy %s -n %s --set schedule.logfile.enable=true", n.Policy, n.Namespace)
}

// judgeRecoverable judges whether there is a window that goes on. With leftOnly all that
// there are end in a repository that the cluster left.
func judgeRecoverable(s *v1alpha1.ClusterStatus, leftOnly bool, archiving verdict, n checkup.Names) verdict {
	backup := fmt.Sprintf("kbcli cluster backup %s -n %s", n.Cluster, n.Namespace)
	switch {
	case s.Archive != nil && s.Archive.State == v1alpha1.ArchiveGap:
		return no("Gap", then("WAL is missing since the last backup: nothing after it can be brought back until there is another", backup))
	case len(s.Windows) == 0 && s.LastBackup == "":
		return no("NoBackup", then("no backup has completed: nothing can be brought back", backup))
	case len(s.Windows) == 0:
		return no("NoWindow", then("there is a backup, and no moment can be brought back", fmt.Sprintf("kbcli doctor %s -n %s", n.Cluster, n.Namespace)))
	case leftOnly:
		return no("NoBackup", then(fmt.Sprintf("no backup has completed in the repository %s: what is in the former one can be brought back, and nothing later", n.Repository), backup))
	case archiving.status == metav1.ConditionFalse:
		return no("StandsStill", "what is in the repository can be brought back, and nothing later: "+archiving.message)
	case archiving.status == metav1.ConditionUnknown:
		return unsure(archiving.reason, archiving.message)
	}
	return yes("Window", "there is a window, and it goes on")
}
