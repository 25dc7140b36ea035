// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// BackupType is the way a backup is taken.
//
// +kubebuilder:validation:Enum=snapshot;datafile;incremental
type BackupType string

// The ways to take a backup.
const (
	BackupSnapshot    BackupType = "snapshot"    // of the volume or the file system
	BackupDatafile    BackupType = "datafile"    // every file
	BackupIncremental BackupType = "incremental" // the blocks that changed; it restores alone all the same
)

// Backup is one saving of a cluster. It is a view: the repository has the truth,
// and a Backup that was lost comes back from there.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=backups,singular=backup,categories={kubeblocks}
// +kubebuilder:printcolumn:name="CLUSTER",type=string,JSONPath=`.spec.clusterRef`
// +kubebuilder:printcolumn:name="TYPE",type=string,JSONPath=`.spec.backupType`
// +kubebuilder:printcolumn:name="STATUS",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="TOTAL-SIZE",type=integer,JSONPath=`.status.totalSize`
// +kubebuilder:printcolumn:name="DURATION",type=string,JSONPath=`.status.duration`
// +kubebuilder:printcolumn:name="CREATE-TIME",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="COMPLETION-TIME",type=date,JSONPath=`.status.completionTimestamp`
// +kubebuilder:printcolumn:name="EXPIRATION",type=date,JSONPath=`.status.expiration`
type Backup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec   BackupSpec   `json:"spec"`
	Status BackupStatus `json:"status,omitzero"`
}

// BackupSpec asks for a backup. It cannot be changed.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.backupPolicyName) || self.backupPolicyName == "" ? !has(oldSelf.backupPolicyName) || oldSelf.backupPolicyName == "" : has(oldSelf.backupPolicyName) && self.backupPolicyName == oldSelf.backupPolicyName`,message="cannot be changed",fieldPath=".backupPolicyName"
// +kubebuilder:validation:XValidation:rule=`!has(self.backupType) || self.backupType == "" ? !has(oldSelf.backupType) || oldSelf.backupType == "" : has(oldSelf.backupType) && self.backupType == oldSelf.backupType`,message="cannot be changed",fieldPath=".backupType"
// +kubebuilder:validation:XValidation:rule=`!has(self.copyOf) || self.copyOf == "" ? !has(oldSelf.copyOf) || oldSelf.copyOf == "" : has(oldSelf.copyOf) && self.copyOf == oldSelf.copyOf`,message="cannot be changed",fieldPath=".copyOf"
// +kubebuilder:validation:XValidation:rule=`self.?copyOf.orValue("") == "" || self.?backupType.orValue('datafile') == 'datafile'`,message="is only for a datafile backup",fieldPath=".copyOf"
// +kubebuilder:validation:XValidation:rule=`!has(self.target) ? !has(oldSelf.target) : has(oldSelf.target) && self.target == oldSelf.target`,message="cannot be changed",fieldPath=".target"
// +kubebuilder:validation:XValidation:rule=`!has(self.target) || self.target != 'standby' || self.?backupType.orValue('datafile') != 'snapshot'`,message="a snapshot is of the primary: a datafile or incremental backup can be of a standby",fieldPath=".target"
type BackupSpec struct {
	// ClusterRef is the name of the Cluster, in the same namespace. The cluster
	// may be gone: its backups stay.
	// +required
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed"
	ClusterRef string `json:"clusterRef"`
	// BackupPolicyName is the policy that names the repository. Empty is the
	// default policy of the cluster.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	// +optional
	BackupPolicyName string `json:"backupPolicyName,omitempty"`
	// BackupType is the way it is taken: a snapshot of the volume or the file system,
	// every file, or the blocks that changed.
	// +kubebuilder:default=datafile
	// +optional
	BackupType BackupType `json:"backupType,omitempty"`
	// CopyOf names a snapshot whose bytes this datafile backup puts into the
	// repository. Empty reads the server.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	// +optional
	CopyOf string `json:"copyOf,omitempty"`
	// Limits is what the backup may take of the machine. What it leaves open the policy
	// says. It is looked at when the backup begins.
	// +optional
	Limits *LimitsSpec `json:"limits,omitempty"`
	// Target is the server whose files are read. A snapshot is the primary's. Empty is what
	// the policy says.
	// +optional
	Target BackupTarget `json:"target,omitempty"`
}

// BackupTarget is the server whose files a backup reads.
//
// +kubebuilder:validation:Enum=primary;standby;prefer-standby
// +kubebuilder:validation:MaxLength=14
type BackupTarget string

// The servers. Where there is no standby, standby fails and prefer-standby reads the primary.
const (
	TargetPrimary       BackupTarget = "primary"
	TargetStandby       BackupTarget = "standby"
	TargetPreferStandby BackupTarget = "prefer-standby"
)

// FromStandby tells whether a standby is asked for.
func (t BackupTarget) FromStandby() bool { return t == TargetStandby || t == TargetPreferStandby }

func (t BackupTarget) validate(l *FieldErrors, path string) {
	switch t {
	case "", TargetPrimary, TargetStandby, TargetPreferStandby:
	default:
		l.invalid(path, string(t), "is not one of primary, standby, prefer-standby")
	}
}

// StandbyPhase is how far the agents beside the primary and beside a standby have come.
type StandbyPhase string

// The primary's agent offers a backup, a standby's takes it, and is done or has failed. The
// primary's then says so of the Backup.
const (
	StandbyOffered StandbyPhase = "Offered"
	StandbyTaken   StandbyPhase = "Taken"
	StandbyDone    StandbyPhase = "Done"
	StandbyFailed  StandbyPhase = "Failed"
)

// StandbyStatus is a backup that is taken beside a standby.
type StandbyStatus struct {
	Phase StandbyPhase `json:"phase,omitempty"`
	// Instance is the server that takes it.
	Instance string `json:"instance,omitempty"`
	// Redo is where the primary's checkpoint begins that was made for it, From what a standby
	// must have replayed to take it.
	Redo string `json:"redo,omitempty"`
	From string `json:"from,omitempty"`
	// Progress is its agent's, Message why it failed.
	Progress *Progress `json:"progress,omitempty"`
	Message  string    `json:"message,omitempty"`
}

// BackupPhase is the state of a backup in one word.
type BackupPhase string

// The phases of a backup. No phase is New: nobody has looked at it yet.
const (
	BackupNew        BackupPhase = "New"
	BackupInProgress BackupPhase = "InProgress"
	BackupCompleted  BackupPhase = "Completed" // it can be restored
	BackupFailed     BackupPhase = "Failed"
	BackupDeleting   BackupPhase = "Deleting"
)

// BackupStatus is what came of a backup.
type BackupStatus struct {
	Phase BackupPhase `json:"phase,omitempty"`
	// Reason is why it failed in one CamelCase word, FailureReason in a sentence.
	Reason        string `json:"reason,omitempty"`
	FailureReason string `json:"failureReason,omitempty"`
	// Message is what else is to be said, as why an incremental backup read everything.
	Message string `json:"message,omitempty"`
	// Manual backups are never ended by a ttl.
	Manual bool `json:"manual,omitempty"`
	// Repo is the BackupRepo, Lineage the place in it.
	Repo    string `json:"repo,omitempty"`
	Lineage string `json:"lineage,omitempty"`

	StartTimestamp      metav1.Time `json:"startTimestamp,omitzero"`
	CompletionTimestamp metav1.Time `json:"completionTimestamp,omitzero"`
	// Duration is from start to completion.
	Duration metav1.Duration `json:"duration,omitzero"`
	// Expiration is when retention may take the backup; none is never.
	Expiration metav1.Time `json:"expiration,omitzero"`
	// MarkedTime is when the retention marked the backup because nothing that is
	// promised needs it; none: it is to stay. It is deleted at DeletionTime, unless it is
	// promised again by then, and can be restored until then.
	MarkedTime   metav1.Time `json:"markedTime,omitzero"`
	DeletionTime metav1.Time `json:"deletionTime,omitzero"`

	// TotalSize is in bytes: what the repository holds for this backup alone.
	// FormatSize makes it readable.
	TotalSize int64 `json:"totalSize,omitempty"`

	Timeline int64  `json:"timeline,omitempty"`
	StartLSN string `json:"startLSN,omitempty"`
	StopLSN  string `json:"stopLSN,omitempty"`
	// StopTime is the first moment that the backup can be restored to.
	StopTime MicroTime `json:"stopTime,omitzero"`

	// SnapshotPath is where a snapshot lies on its machine.
	SnapshotPath string `json:"snapshotPath,omitempty"`
	// VolumeSnapshot is the snapshot of a volume, as namespace/name.
	VolumeSnapshot string `json:"volumeSnapshot,omitempty"`

	Progress *Progress `json:"progress,omitempty"`
	// Standby is how it stands with a backup that is taken beside a standby.
	Standby *StandbyStatus `json:"standby,omitempty"`
}

// BackupList is several of them, as the Kubernetes API hands them out.
//
// +kubebuilder:object:root=true
type BackupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []Backup `json:"items"`
}

// GroupVersionKind is that of every Backup.
func (b *Backup) GroupVersionKind() schema.GroupVersionKind {
	return gvk(DataProtectionGroup, KindBackup)
}

// PhaseOrNew is the phase, New when there is none.
func (b *Backup) PhaseOrNew() BackupPhase {
	if b.Status.Phase == "" {
		return BackupNew
	}
	return b.Status.Phase
}

// SetDefaults fills what was left unsaid. The labels are for finding the
// backups of a cluster, and follow the spec.
func (b *Backup) SetDefaults() {
	b.SetGroupVersionKind(b.GroupVersionKind())
	if b.Spec.BackupType == "" {
		b.Spec.BackupType = BackupDatafile
	}
	if b.Labels == nil {
		b.Labels = make(map[string]string)
	}
	b.Labels[LabelCluster] = b.Spec.ClusterRef
	b.Labels[LabelBackupType] = string(b.Spec.BackupType)
}

// Validate is everything that is wrong with the name and the spec.
func (b *Backup) Validate() error {
	var l FieldErrors
	l.subdomain("metadata.name", b.Name)
	l.metadata(b)
	l.clusterName("spec.clusterRef", b.Spec.ClusterRef)
	if b.Spec.BackupPolicyName != "" {
		l.subdomain("spec.backupPolicyName", b.Spec.BackupPolicyName)
	}
	if b.Spec.CopyOf != "" {
		l.subdomain("spec.copyOf", b.Spec.CopyOf)
		if b.Spec.BackupType != BackupDatafile {
			l.forbidden("spec.copyOf", "is only for a datafile backup")
		}
	}
	b.Spec.Target.validate(&l, "spec.target")
	if b.Spec.Target == TargetStandby && b.Spec.BackupType == BackupSnapshot {
		l.forbidden("spec.target", "a snapshot is of the primary: a datafile or incremental backup can be of a standby")
	}
	switch b.Spec.BackupType {
	case BackupSnapshot, BackupDatafile, BackupIncremental:
	default:
		l.invalid("spec.backupType", string(b.Spec.BackupType), "is not one of snapshot, datafile, incremental")
	}
	b.Spec.Limits.validate(&l, "spec.limits")
	return l.orNil()
}

// ValidateUpdate refuses any change of the spec: what was taken is taken.
func (b *Backup) ValidateUpdate(old Object) error {
	var l FieldErrors
	was, is := old.(*Backup).Spec, b.Spec
	immutable(&l, "spec.clusterRef", was.ClusterRef, is.ClusterRef)
	immutable(&l, "spec.backupPolicyName", was.BackupPolicyName, is.BackupPolicyName)
	immutable(&l, "spec.backupType", was.BackupType, is.BackupType)
	immutable(&l, "spec.copyOf", was.CopyOf, is.CopyOf)
	immutable(&l, "spec.target", was.Target, is.Target)
	return l.orNil()
}
