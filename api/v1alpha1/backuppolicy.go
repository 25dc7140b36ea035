// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// BackupPolicy says when a cluster is saved, where to, and for how long. One is
// made with each cluster.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=backuppolicies,singular=backuppolicy,shortName=bp,categories={kubeblocks}
// +kubebuilder:printcolumn:name="DEFAULT",type=string,JSONPath=`.metadata.annotations.dataprotection\.kubeblocks\.io/is-default-policy`
// +kubebuilder:printcolumn:name="CLUSTER",type=string,JSONPath=`.spec.clusterRef`
// +kubebuilder:printcolumn:name="STATUS",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type BackupPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec   BackupPolicySpec   `json:"spec"`
	Status BackupPolicyStatus `json:"status,omitzero"`
}

// BackupPolicySpec is what people edit: each switch is written out, off or on,
// so that it can be found.
type BackupPolicySpec struct {
	// ClusterRef is the name of the Cluster, in the same namespace. It cannot be changed.
	// +required
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed"
	ClusterRef string `json:"clusterRef"`

	// BackupRepoName is the name of the BackupRepo. Empty is the default one.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	// +optional
	BackupRepoName string `json:"backupRepoName,omitempty"`

	// Retention says how far back a restore must be able to go.
	// +kubebuilder:default={}
	// +optional
	Retention RetentionSpec `json:"retention,omitzero"`
	// Schedule says what is saved when.
	// +kubebuilder:default={}
	// +optional
	Schedule ScheduleSpec `json:"schedule,omitzero"`
	// Archive says how WAL travels.
	// +kubebuilder:default={}
	// +optional
	Archive ArchiveSpec `json:"archive,omitzero"`
	// Snapshot says what becomes of snapshots.
	// +optional
	Snapshot SnapshotSpec `json:"snapshot,omitzero"`
	// Incremental says when an incremental backup comes beside its schedule.
	// +optional
	Incremental IncrementalSpec `json:"incremental,omitzero"`
	// Limits is what one backup may take of the machine.
	// +optional
	Limits *LimitsSpec `json:"limits,omitempty"`
	// Target is the server whose files datafile and incremental backups read, where they
	// do not say: the primary, a standby, or a standby where there is one. On one machine
	// there is the primary.
	// +kubebuilder:default=primary
	// +optional
	Target BackupTarget `json:"target,omitempty"`
}

// RetentionSpec is how far back a restore must be able to go.
//
// +kubebuilder:validation:XValidation:rule="self.?maxBackups.orValue(0) == 0 || self.?minBackups.orValue(0) <= self.maxBackups",message="is more than maxBackups",fieldPath=".minBackups"
type RetentionSpec struct {
	// TTL is a number of days or hours, 7d or 168h.
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[0-9]+[dDhH]$`
	// +kubebuilder:validation:XValidation:rule="int(self.substring(0, self.size() - 1)) >= 1 && int(self.substring(0, self.size() - 1)) <= (self.matches('[dD]$') ? 36500 : 876000)",message="must be at least 1h and at most 36500d"
	// +kubebuilder:default="7d"
	// +optional
	TTL string `json:"ttl,omitempty"`

	// Grace is how long what the retention lets go is only marked before it is deleted,
	// a number of days or hours; 0h deletes at once. Until then it can be restored, and
	// stays if the policy promises it again.
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[0-9]+[dDhH]$`
	// +kubebuilder:validation:XValidation:rule="int(self.substring(0, self.size() - 1)) <= (self.matches('[dD]$') ? 36500 : 876000)",message="must be at most 36500d"
	// +kubebuilder:default="1d"
	// +optional
	Grace string `json:"grace,omitempty"`

	// MinBackups is how many scheduled backups stay at least, however old they are.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MinBackups int32 `json:"minBackups,omitempty"`

	// MaxBackups is how many scheduled backups stay at most, even where the TTL
	// promises more: what can be gone back to then begins with the oldest of them.
	// 0 is no limit.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MaxBackups int32 `json:"maxBackups,omitempty"`
}

// SnapshotSpec says what becomes of snapshots.
type SnapshotSpec struct {
	// CopyToRepository makes of each snapshot a backup in the repository afterwards,
	// read from the snapshot and not from the server. It is a Backup of its own.
	// +optional
	CopyToRepository bool `json:"copyToRepository,omitempty"`
}

// IncrementalSpec says when an incremental backup comes beside its schedule.
type IncrementalSpec struct {
	// ReplayBound is how much WAL a restore should replay at most, at least 16Mi: an
	// incremental backup is taken by itself whenever that much has gathered since the
	// last backup in the repository began. Empty is no bound. The first backup is for
	// a schedule or for people.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) == 0 || quantity(string(self)).compareTo(quantity('16Mi')) >= 0",message="is less than 16Mi"
	// +optional
	ReplayBound resource.Quantity `json:"replayBound,omitzero"`
}

// ScheduleSpec has one schedule for each kind of saving.
type ScheduleSpec struct {
	// Snapshot is a snapshot of the volume or the file system.
	// +kubebuilder:default={}
	// +optional
	Snapshot Schedule `json:"snapshot,omitzero"`
	// Datafile is a full copy.
	// +kubebuilder:default={}
	// +optional
	Datafile Schedule `json:"datafile,omitzero"`
	// Incremental copies the blocks that changed since the last backup.
	// +kubebuilder:default={}
	// +optional
	Incremental Schedule `json:"incremental,omitzero"`
	// Logfile archives WAL, continuously. Its cron only bounds how long an idle
	// window may stand still.
	// +kubebuilder:default={}
	// +optional
	Logfile Schedule `json:"logfile,omitzero"`
}

// Schedule is a switch and a time.
type Schedule struct {
	// Enable turns it on.
	// +kubebuilder:default=false
	Enable bool `json:"enable"`
	// CronExpression is five fields, in UTC. Empty is the usual one of its kind.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^(\s*[^@\s=]\S*(\s+[^\s=]+){4}\s*)?$`
	CronExpression string `json:"cronExpression"`
}

// ArchiveMode says what an acknowledged commit is worth.
//
// +kubebuilder:validation:Enum=async;sync
type ArchiveMode string

// The modes of the archive.
const (
	ArchiveAsync ArchiveMode = "async" // losing the machine costs about a tailInterval of commits
	ArchiveSync  ArchiveMode = "sync"  // a commit waits until the repository holds it
)

// SpoolFullPolicy says what gives when the spool is full.
//
// +kubebuilder:validation:Enum=Wait;Gap
type SpoolFullPolicy string

// What to do when the spool is full.
const (
	SpoolWait SpoolFullPolicy = "Wait" // stop acknowledging: PostgreSQL keeps its WAL
	SpoolGap  SpoolFullPolicy = "Gap"  // give up the oldest WAL, and say that there is a gap
)

// ArchiveSpec is how WAL travels.
type ArchiveSpec struct {
	// Mode says what an acknowledged commit is worth: async loses about a tailInterval
	// of commits with the machine, sync none.
	// +kubebuilder:default=async
	// +optional
	Mode ArchiveMode `json:"mode,omitempty"`
	// TailInterval is how often the segment that is still being written goes to
	// the repository, 100ms to 1m.
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1m')",message="is not between 100ms and 1m"
	// +optional
	TailInterval metav1.Duration `json:"tailInterval,omitzero"`
	// Spool bounds the WAL that waits on the agent's disk.
	// +kubebuilder:default={}
	// +optional
	Spool SpoolSpec `json:"spool,omitzero"`
}

// SpoolSpec bounds the WAL that waits on the agent's disk.
type SpoolSpec struct {
	// Limit is at least 64Mi.
	// +kubebuilder:default="8Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('64Mi')) >= 0",message="is less than 64Mi"
	// +optional
	Limit resource.Quantity `json:"limit,omitzero"`
	// WhenFull says what gives: Wait stops acknowledging, so that PostgreSQL keeps its
	// WAL; Gap gives up the oldest WAL.
	// +kubebuilder:default=Wait
	// +optional
	WhenFull SpoolFullPolicy `json:"whenFull,omitempty"`
}

// BackupPolicyPhase is the state of a policy in one word.
type BackupPolicyPhase string

// The phases of a policy.
const (
	PolicyAvailable BackupPolicyPhase = "Available"
	PolicyFailed    BackupPolicyPhase = "Failed"
)

// BackupPolicyStatus is what came of a policy.
type BackupPolicyStatus struct {
	Phase              BackupPolicyPhase `json:"phase,omitempty"`
	Message            string            `json:"message,omitempty"`
	ObservedGeneration int64             `json:"observedGeneration,omitempty"`
	// LastScheduleTime has a key for each schedule that ran: snapshot, datafile,
	// incremental. The value is the scheduled moment, not that of the work.
	LastScheduleTime map[string]metav1.Time `json:"lastScheduleTime,omitempty"`
	// LastSuccessfulTime is when the last scheduled backup ended well.
	LastSuccessfulTime metav1.Time `json:"lastSuccessfulTime,omitzero"`
}

// BackupPolicyList is several of them, as the Kubernetes API hands them out.
//
// +kubebuilder:object:root=true
type BackupPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []BackupPolicy `json:"items"`
}

// GroupVersionKind is that of every BackupPolicy.
func (p *BackupPolicy) GroupVersionKind() schema.GroupVersionKind {
	return gvk(DataProtectionGroup, KindBackupPolicy)
}

// IsDefault says whether a backup uses the policy when none is named.
func (p *BackupPolicy) IsDefault() bool { return p.Annotations[AnnotationDefaultPolicy] == "true" }

// SetDefaults fills what was left unsaid.
func (p *BackupPolicy) SetDefaults() {
	p.SetGroupVersionKind(p.GroupVersionKind())
	s := &p.Spec
	if s.Retention.TTL == "" {
		s.Retention.TTL = "7d"
	}
	if s.Retention.Grace == "" {
		s.Retention.Grace = DefaultGrace
	}
	for _, c := range []struct {
		s    *Schedule
		cron string
	}{
		{&s.Schedule.Snapshot, "0 18 * * *"},
		{&s.Schedule.Datafile, "0 18 * * *"},
		{&s.Schedule.Incremental, "0 */6 * * *"},
		{&s.Schedule.Logfile, "*/5 * * * *"},
	} {
		if c.s.CronExpression == "" {
			c.s.CronExpression = c.cron
		}
	}
	if s.Target == "" {
		s.Target = TargetPrimary
	}
	if s.Archive.Mode == "" {
		s.Archive.Mode = ArchiveAsync
	}
	if s.Archive.TailInterval.Duration == 0 {
		s.Archive.TailInterval.Duration = time.Second
	}
	if s.Archive.Spool.Limit.IsZero() {
		s.Archive.Spool.Limit = resource.MustParse("8Gi")
	}
	if s.Archive.Spool.WhenFull == "" {
		s.Archive.Spool.WhenFull = SpoolWait
	}
}

// Validate is everything that is wrong with the name and the spec.
func (p *BackupPolicy) Validate() error {
	var l FieldErrors
	l.subdomain("metadata.name", p.Name)
	l.metadata(p)
	s := &p.Spec
	l.clusterName("spec.clusterRef", s.ClusterRef)
	if s.BackupRepoName != "" {
		l.subdomain("spec.backupRepoName", s.BackupRepoName)
	}
	s.Target.validate(&l, "spec.target")
	if _, err := ParseTTL(s.Retention.TTL); err != nil {
		l.invalid("spec.retention.ttl", s.Retention.TTL, reasonOf(s.Retention.TTL, err))
	}
	if _, err := ParseGrace(s.Retention.Grace); err != nil {
		l.invalid("spec.retention.grace", s.Retention.Grace, reasonOf(s.Retention.Grace, err))
	}
	if r := s.Retention; r.MinBackups < 0 || r.MaxBackups < 0 {
		l.invalid("spec.retention", "", "minBackups and maxBackups must not be negative")
	} else if r.MaxBackups != 0 && r.MinBackups > r.MaxBackups {
		l.invalid("spec.retention.minBackups", strconv.Itoa(int(r.MinBackups)), "is more than maxBackups")
	}
	for _, c := range []struct {
		path string
		s    Schedule
	}{
		{"spec.schedule.snapshot", s.Schedule.Snapshot},
		{"spec.schedule.datafile", s.Schedule.Datafile},
		{"spec.schedule.incremental", s.Schedule.Incremental},
		{"spec.schedule.logfile", s.Schedule.Logfile},
	} {
		if _, err := ParseCron(c.s.CronExpression); err != nil {
			l.invalid(c.path+".cronExpression", c.s.CronExpression, reasonOf(c.s.CronExpression, err))
		}
	}
	a := &s.Archive
	if a.Mode != ArchiveAsync && a.Mode != ArchiveSync {
		l.invalid("spec.archive.mode", string(a.Mode), "is not one of async, sync")
	}
	if d := a.TailInterval.Duration; d < 100*time.Millisecond || d > time.Minute {
		l.invalid("spec.archive.tailInterval", d.String(), "is not between 100ms and 1m")
	}
	if a.Spool.Limit.Cmp(resource.MustParse("64Mi")) < 0 {
		l.invalid("spec.archive.spool.limit", a.Spool.Limit.String(), "is less than 64Mi")
	}
	if a.Spool.WhenFull != SpoolWait && a.Spool.WhenFull != SpoolGap {
		l.invalid("spec.archive.spool.whenFull", string(a.Spool.WhenFull), "is not one of Wait, Gap")
	}
	if b := s.Incremental.ReplayBound; !b.IsZero() && b.Cmp(resource.MustParse("16Mi")) < 0 {
		l.invalid("spec.incremental.replayBound", b.String(), "is less than 16Mi")
	}
	s.Limits.validate(&l, "spec.limits")
	return l.orNil()
}

// ValidateUpdate refuses to turn the policy of one cluster into another's.
func (p *BackupPolicy) ValidateUpdate(old Object) error {
	var l FieldErrors
	immutable(&l, "spec.clusterRef", old.(*BackupPolicy).Spec.ClusterRef, p.Spec.ClusterRef)
	return l.orNil()
}
