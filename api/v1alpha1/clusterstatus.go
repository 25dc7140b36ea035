// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterPhase is the state of a Cluster in one word.
type ClusterPhase string

// The phases of a Cluster.
const (
	ClusterCreating   ClusterPhase = "Creating"
	ClusterRestoring  ClusterPhase = "Restoring"
	ClusterRunning    ClusterPhase = "Running"
	ClusterUpdating   ClusterPhase = "Updating"
	ClusterRestarting ClusterPhase = "Restarting"
	ClusterStarting   ClusterPhase = "Starting"
	ClusterStopping   ClusterPhase = "Stopping"
	ClusterStopped    ClusterPhase = "Stopped"
	ClusterFailed     ClusterPhase = "Failed"   // it will not mend itself; reason and message say why
	ClusterAbnormal   ClusterPhase = "Abnormal" // some of its servers serve
	ClusterDeleting   ClusterPhase = "Deleting"
	ClusterUnknown    ClusterPhase = "Unknown" // nobody could look
)

// The conditions of a Cluster.
const (
	ConditionReady       = "Ready"       // its server takes connections
	ConditionArchiving   = "Archiving"   // what it commits reaches the repository
	ConditionRecoverable = "Recoverable" // there is a window, and it goes on
)

// ClusterStatus is what the agent or the operator saw last.
type ClusterStatus struct {
	Phase ClusterPhase `json:"phase,omitempty"`
	// Reason is one CamelCase word, Message a sentence for people.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// ObservedGeneration is the generation of the spec that the status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Version is the server's own, "15.8".
	Version string `json:"version,omitempty"`
	// SystemIdentifier is that of pg_control, in decimal.
	SystemIdentifier string `json:"systemIdentifier,omitempty"`
	// Lineage names this cluster's place in the repository.
	Lineage string `json:"lineage,omitempty"`

	Port            int32  `json:"port,omitempty"`
	SocketDirectory string `json:"socketDirectory,omitempty"`
	DataDirectory   string `json:"dataDirectory,omitempty"`
	// Superuser is the role that the server is looked after as, and that accounts are made
	// by. Of an attached server it is empty where kbcli was given another role.
	Superuser string `json:"superuser,omitempty"`
	// PID is the postmaster's, on one machine.
	PID int64 `json:"pid,omitempty"`
	// RestartedAt is the AnnotationRestart that was acted upon last.
	RestartedAt string `json:"restartedAt,omitempty"`

	Archive *ArchiveStatus `json:"archive,omitempty"`
	// Windows are the moments that can be restored, oldest first. Between two there is a gap.
	Windows []RecoverableWindow `json:"windows,omitempty"`
	// Branches are the windows of timelines that did not lead to the present one, such as
	// what a server wrote that somebody went back on; a restore names the timeline.
	Branches []RecoverableWindow `json:"branches,omitempty"`
	Restore  *RestoreStatus      `json:"restore,omitempty"`

	// LastBackup is the newest that was completed, LastBackupTime when that was.
	LastBackup     string      `json:"lastBackup,omitempty"`
	LastBackupTime metav1.Time `json:"lastBackupTime,omitzero"`

	// Conditions are Ready, Archiving and Recoverable.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ArchiveState is what the archiving of WAL does now.
type ArchiveState string

// The states of the archive.
const (
	ArchiveStreaming  ArchiveState = "Streaming"
	ArchiveConnecting ArchiveState = "Connecting" // to PostgreSQL, again and again
	ArchiveStopped    ArchiveState = "Stopped"    // by policy, or with its cluster
	ArchiveBlocked    ArchiveState = "Blocked"    // PostgreSQL keeps its WAL: the spool is full, or the repository cannot be used
	ArchiveGap        ArchiveState = "Gap"        // WAL is missing since the last backup
)

// ArchiveStatus says how far WAL has come. Received is in the agent's memory,
// spooled on its disk, repository where a restore finds it.
type ArchiveStatus struct {
	State         ArchiveState `json:"state,omitempty"`
	Timeline      int64        `json:"timeline,omitempty"`
	ReceivedLSN   string       `json:"receivedLSN,omitempty"`
	SpooledLSN    string       `json:"spooledLSN,omitempty"`
	RepositoryLSN string       `json:"repositoryLSN,omitempty"`
	// ProvenTime: every commit that was acknowledged by then is in the repository.
	ProvenTime MicroTime `json:"provenTime,omitzero"`
	// LagBytes is how much WAL the server has written that the repository has not.
	LagBytes   int64 `json:"lagBytes"`
	SpoolBytes int64 `json:"spoolBytes"`
	// LagSeconds is how old the oldest WAL is that the server has written and the
	// repository has not.
	LagSeconds    int64       `json:"lagSeconds"`
	LastError     string      `json:"lastError,omitempty"`
	LastErrorTime metav1.Time `json:"lastErrorTime,omitzero"`
	Gaps          []Gap       `json:"gaps,omitempty"`
}

// Gap is WAL of one timeline that no repository has: from From, up to and not
// with To.
type Gap struct {
	Timeline int64  `json:"timeline"`
	From     string `json:"from"`
	To       string `json:"to"`
	Reason   string `json:"reason,omitempty"`
	// Time is when the gap was found.
	Time MicroTime `json:"time,omitzero"`
}

// RecoverableWindow is a span of moments, both ends included, each of which can
// be restored.
type RecoverableWindow struct {
	Timeline int64     `json:"timeline"`
	From     MicroTime `json:"from"`
	To       MicroTime `json:"to"`
	FromLSN  string    `json:"fromLSN"`
	ToLSN    string    `json:"toLSN"`
	// Backup is the one that the window begins with.
	Backup string `json:"backup"`
}

// RestorePhase is how far a restore has come.
type RestorePhase string

// The phases of a restore, in order; Failed can follow any.
const (
	RestorePlanning   RestorePhase = "Planning"
	RestoreFetching   RestorePhase = "Fetching"
	RestoreRecovering RestorePhase = "Recovering"
	RestoreProving    RestorePhase = "Proving"
	RestoreCompleted  RestorePhase = "Completed"
	RestoreFailed     RestorePhase = "Failed"
)

// RestoreStatus tells of the restore that a cluster came from. It stays after the end.
type RestoreStatus struct {
	Phase      RestorePhase `json:"phase,omitempty"`
	Message    string       `json:"message,omitempty"`
	Progress   *Progress    `json:"progress,omitempty"`
	PlannedLSN string       `json:"plannedLSN,omitempty"`
	ReachedLSN string       `json:"reachedLSN,omitempty"`

	// The last commit that was kept and the first that was lost. Empty: none.
	LastKeptXID   string    `json:"lastKeptXID,omitempty"`
	LastKeptTime  MicroTime `json:"lastKeptTime,omitzero"`
	FirstLostXID  string    `json:"firstLostXID,omitempty"`
	FirstLostTime MicroTime `json:"firstLostTime,omitzero"`

	// Steps are when each part of the restore began, in order. The last, Serving, is its end.
	Steps []RestoreStep `json:"steps,omitempty"`

	// Notes are for people: what differs from the source, and why.
	Notes []string `json:"notes,omitempty"`
}

// RestoreStep is a part of a restore.
type RestoreStep struct {
	// Name is Planning, Scheduling (volume and pod are made), Fetching, Recovering, Opening
	// (what was recovered is made a cluster of its own), Starting or Serving.
	Name      string    `json:"name"`
	StartedAt MicroTime `json:"startedAt,omitzero"`
}

// The names of RestoreSteps that are not RestorePhases.
const (
	StepScheduling = "Scheduling"
	StepOpening    = "Opening"
	StepStarting   = "Starting"
	StepServing    = "Serving"
)

// Begin notes that a part of the restore begins now, unless it was noted before.
func (s *RestoreStatus) Begin(name string, now time.Time) {
	for _, step := range s.Steps {
		if step.Name == name {
			return
		}
	}
	s.Steps = append(s.Steps, RestoreStep{Name: name, StartedAt: MicroTimeOf(now)})
}

// Took says how long the restore took, and its parts: "9.8 s: planning 0.6 s, …". It is
// empty before the second part.
func (s *RestoreStatus) Took() string {
	n := len(s.Steps)
	if n < 2 {
		return ""
	}
	var parts []string
	for i, step := range s.Steps[:n-1] {
		took := s.Steps[i+1].StartedAt.Sub(step.StartedAt.Time)
		parts = append(parts, fmt.Sprintf("%s %.1f s", strings.ToLower(step.Name), took.Seconds()))
	}
	return fmt.Sprintf("%.1f s: %s", s.Steps[n-1].StartedAt.Sub(s.Steps[0].StartedAt.Time).Seconds(), strings.Join(parts, ", "))
}

// Progress of long work. A total of 0 is not known yet.
type Progress struct {
	// Phase is what is being done now, in one word.
	Phase string `json:"phase,omitempty"`
	// Message is what holds the work up, in the words of who does; empty while it goes on.
	Message       string      `json:"message,omitempty"`
	StartedAt     metav1.Time `json:"startedAt,omitzero"`
	BytesDone     int64       `json:"bytesDone"`
	BytesTotal    int64       `json:"bytesTotal"`
	SegmentsDone  int64       `json:"segmentsDone"`
	SegmentsTotal int64       `json:"segmentsTotal"`
}
