// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TerminationPolicy says what `cluster delete` may take.
//
// +kubebuilder:validation:Enum=Delete;DoNotTerminate;Halt;WipeOut
type TerminationPolicy string

// What goes with a deleted Cluster.
const (
	TerminationDelete         TerminationPolicy = "Delete"         // the server and its data; backups stay
	TerminationDoNotTerminate TerminationPolicy = "DoNotTerminate" // nothing: deleting is refused
	TerminationHalt           TerminationPolicy = "Halt"           // the server; its data and backups stay
	TerminationWipeOut        TerminationPolicy = "WipeOut"        // the server, its data and its backups
)

// Cluster is a PostgreSQL: one that is made, one that is restored from another's
// past, or one that runs already and is to be protected.
//
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be a name of at most 40 lower-case letters, digits and '-' that starts with a letter and ends with a letter or digit"
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=clusters,singular=cluster,categories={kubeblocks,all}
// +kubebuilder:printcolumn:name="CLUSTER-DEFINITION",type=string,JSONPath=`.spec.clusterDefinitionRef`
// +kubebuilder:printcolumn:name="VERSION",type=string,JSONPath=`.spec.clusterVersionRef`
// +kubebuilder:printcolumn:name="TERMINATION-POLICY",type=string,JSONPath=`.spec.terminationPolicy`
// +kubebuilder:printcolumn:name="STATUS",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type Cluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +kubebuilder:default={}
	Spec   ClusterSpec   `json:"spec"`
	Status ClusterStatus `json:"status,omitzero"`
}

// ClusterSpec is the PostgreSQL that is wanted.
//
// +kubebuilder:validation:XValidation:rule=`!has(oldSelf.clusterVersionRef) || oldSelf.clusterVersionRef == "" || has(self.clusterVersionRef) && self.clusterVersionRef == oldSelf.clusterVersionRef`,message="cannot be changed",fieldPath=".clusterVersionRef"
// +kubebuilder:validation:XValidation:rule=`!has(self.storageClassName) || self.storageClassName == "" ? !has(oldSelf.storageClassName) || oldSelf.storageClassName == "" : has(oldSelf.storageClassName) && self.storageClassName == oldSelf.storageClassName`,message="cannot be changed",fieldPath=".storageClassName"
// +kubebuilder:validation:XValidation:rule="!has(self.restore) || !self.?local.attached.orValue(false)",message="cannot be given for an attached cluster: a restore never writes over a server",fieldPath=".restore"
// +kubebuilder:validation:XValidation:rule="has(self.restore) == has(oldSelf.restore)",message="cannot be changed: restore into another new cluster instead",fieldPath=".restore"
// +kubebuilder:validation:XValidation:rule=`!has(oldSelf.local) || !has(oldSelf.local.dataDirectory) || oldSelf.local.dataDirectory == "" || has(self.local) && has(self.local.dataDirectory) && self.local.dataDirectory == oldSelf.local.dataDirectory`,message="cannot be changed",fieldPath=".local.dataDirectory"
// +kubebuilder:validation:XValidation:rule="self.?local.attached.orValue(false) == oldSelf.?local.attached.orValue(false)",message="cannot be changed",fieldPath=".local.attached"
type ClusterSpec struct {
	// ClusterDefinitionRef is the kind of database. There is one.
	// +kubebuilder:validation:Enum=postgresql
	// +kubebuilder:default=postgresql
	// +optional
	ClusterDefinitionRef string `json:"clusterDefinitionRef,omitempty"`

	// ClusterVersionRef is the major release, postgresql-13 to postgresql-18.
	// Empty is the newest that is installed; it is filled in once it is known.
	// +kubebuilder:validation:MaxLength=13
	// +kubebuilder:validation:Pattern=`^(postgresql-1[3-8])?$`
	// +optional
	ClusterVersionRef string `json:"clusterVersionRef,omitempty"`

	// TerminationPolicy says what deleting the cluster takes along.
	// +kubebuilder:default=Delete
	// +optional
	TerminationPolicy TerminationPolicy `json:"terminationPolicy,omitempty"`

	// Replicas is how many servers hold the data, the primary included.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	// +kubebuilder:default=1
	// +optional
	Replicas int32 `json:"replicas,omitempty"`

	// Storage is the size of each volume. It can grow, never shrink.
	// +kubebuilder:default="20Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="must be more than zero"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",message="a volume cannot shrink"
	// +optional
	Storage resource.Quantity `json:"storage,omitzero"`

	// StorageClassName is the class of the volumes. Empty is the default class.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	// +optional
	StorageClassName string `json:"storageClassName,omitempty"`

	// Resources is what each server may use. Without it nothing is limited.
	// +optional
	Resources Resources `json:"resources,omitzero"`

	// Stopped keeps the data and ends the servers.
	// +optional
	Stopped bool `json:"stopped,omitempty"`

	// Settings are lines of postgresql.conf. Those that kbcli itself needs are refused.
	// +kubebuilder:validation:MaxProperties=700
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z_][A-Za-z0-9_$]*([.][A-Za-z_][A-Za-z0-9_$]*)*$'))",message="a key is not the name of a setting"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.matches('(?i)^(recovery_.*|archive_command|archive_library|config_file|data_directory|external_pid_file|hba_file|ident_file|port|primary_conninfo|primary_slot_name|promote_trigger_file|restore_command|synchronous_standby_names|unix_socket_directories)$'))",message="a key is a setting that kbcli itself sets"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.matches('(?i)^wal_level$') || !self[k].matches('(?i)^minimal$'))",message="wal_level minimal writes too little WAL to restore from: use replica or logical"
	// +optional
	Settings map[string]string `json:"settings,omitempty"`

	// Local is about one machine; Kubernetes has no use for it.
	// +optional
	Local *LocalSpec `json:"local,omitempty"`

	// Restore makes the cluster from another's past. It cannot be changed.
	// +optional
	Restore *RestoreSpec `json:"restore,omitempty"`
}

// Resources is a share of a machine. Nil is no limit.
type Resources struct {
	// CPU is in cores, 500m or 2. Without it nothing is limited.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="must be more than zero"
	// +optional
	CPU *resource.Quantity `json:"cpu,omitempty"`
	// Memory is in bytes, 2Gi. Without it nothing is limited.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="must be more than zero"
	// +optional
	Memory *resource.Quantity `json:"memory,omitempty"`
}

// LocalSpec places a server on one machine.
//
// +kubebuilder:validation:XValidation:rule=`(self.?connect.orValue("") != "") == self.?attached.orValue(false)`,message="belongs to an attached cluster, which must have it",fieldPath=".connect"
// +kubebuilder:validation:XValidation:rule=`!has(self.connect) || !self.connect.matches(r"(?i)(^|[\s?&'])(ssl)?password\s*=") && !self.connect.matches("(?i)^postgres(ql)?://[^/]*:[^/]*@")`,message="must not hold a password: use passfile=, or ~/.pgpass of the user that runs the agent",fieldPath=".connect"
type LocalSpec struct {
	// Port is the TCP port; 0 is the first free one.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`

	// DataDirectory is absolute. Empty is a directory under the state directory.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^(/|(/([^/.\x00][^/\x00]*|\.[^/.\x00][^/\x00]*|\.\.[^/\x00]+))+)?$`
	// +optional
	DataDirectory string `json:"dataDirectory,omitempty"`

	// Connect is a libpq connection string or URI, without a password: those are
	// read from a password file.
	// +kubebuilder:validation:MaxLength=8192
	// +optional
	Connect string `json:"connect,omitempty"`

	// Attached says that somebody else starts and stops the server.
	// +optional
	Attached bool `json:"attached,omitempty"`
}

// RestoreSpec is a moment of another cluster. At most one of Time, LSN, XID,
// Name and Latest is given; with none it is the end of Backup.
//
// +kubebuilder:validation:XValidation:rule=`(has(self.time) ? 1 : 0) + (self.?lsn.orValue("") != "" ? 1 : 0) + (self.?xid.orValue("") != "" ? 1 : 0) + (self.?name.orValue("") != "" ? 1 : 0) + (self.?latest.orValue(false) ? 1 : 0) <= 1`,message="has more than one target: at most one of time, lsn, xid, name and latest"
// +kubebuilder:validation:XValidation:rule=`has(self.time) || self.?lsn.orValue("") != "" || self.?xid.orValue("") != "" || self.?name.orValue("") != "" || self.?latest.orValue(false) || self.?backup.orValue("") != ""`,message="must have a target: time, lsn, xid, name or latest, or a backup"
// +kubebuilder:validation:XValidation:rule=`!self.?exclusive.orValue(false) || has(self.time) || self.?lsn.orValue("") != "" || self.?xid.orValue("") != ""`,message="is only for a time, an lsn or an xid",fieldPath=".exclusive"
// +kubebuilder:validation:XValidation:rule="(has(self.sourceCluster) == has(oldSelf.sourceCluster) && (!has(self.sourceCluster) || self.sourceCluster == oldSelf.sourceCluster) && (!has(self.sourceNamespace) || !has(oldSelf.sourceNamespace) || self.sourceNamespace == oldSelf.sourceNamespace) && has(self.sourceLineage) == has(oldSelf.sourceLineage) && (!has(self.sourceLineage) || self.sourceLineage == oldSelf.sourceLineage) && has(self.backup) == has(oldSelf.backup) && (!has(self.backup) || self.backup == oldSelf.backup) && has(self.time) == has(oldSelf.time) && (!has(self.time) || self.time == oldSelf.time) && has(self.lsn) == has(oldSelf.lsn) && (!has(self.lsn) || self.lsn == oldSelf.lsn) && has(self.xid) == has(oldSelf.xid) && (!has(self.xid) || self.xid == oldSelf.xid) && has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name) && has(self.latest) == has(oldSelf.latest) && (!has(self.latest) || self.latest == oldSelf.latest) && has(self.exclusive) == has(oldSelf.exclusive) && (!has(self.exclusive) || self.exclusive == oldSelf.exclusive) && has(self.timeline) == has(oldSelf.timeline) && (!has(self.timeline) || self.timeline == oldSelf.timeline) && (!has(oldSelf.resolved) || has(self.resolved) && self.resolved == oldSelf.resolved))",message="cannot be changed: restore into another new cluster instead"
type RestoreSpec struct {
	// SourceCluster is the name of the cluster whose past it is. It may be gone: its
	// backups stay.
	// +required
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	SourceCluster string `json:"sourceCluster,omitempty"`

	// SourceNamespace is the namespace of the new cluster when empty.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$`
	// +optional
	SourceNamespace string `json:"sourceNamespace,omitempty"`

	// SourceLineage tells apart clusters that had the same name, one after the
	// other. Empty is the newest.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	SourceLineage string `json:"sourceLineage,omitempty"`

	// Backup is the name of the Backup to start from. Empty is the best one.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	// +optional
	Backup string `json:"backup,omitempty"`

	// Time keeps what was committed at or before it.
	// +optional
	Time *MicroTime `json:"time,omitempty"`
	// LSN keeps what was written up to it, as in recovery_target_lsn.
	// +kubebuilder:validation:MaxLength=17
	// +kubebuilder:validation:Pattern=`^([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})?$`
	// +optional
	LSN string `json:"lsn,omitempty"`
	// XID keeps the transaction, as in recovery_target_xid.
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[0-9]*$`
	// +kubebuilder:validation:XValidation:rule=`self == "" || uint(self) >= 3u`,message="must be a transaction identifier, a number from 3"
	// +optional
	XID string `json:"xid,omitempty"`
	// Name is a restore point of pg_create_restore_point.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[^\x00]*$`
	// +kubebuilder:validation:XValidation:rule="bytes(self).size() <= 63",message="must have at most 63 bytes"
	// +optional
	Name string `json:"name,omitempty"`
	// Latest keeps everything.
	// +optional
	Latest bool `json:"latest,omitempty"`

	// Exclusive stops just before a Time, LSN or XID, which is then not kept.
	// +optional
	Exclusive bool `json:"exclusive,omitempty"`

	// Timeline is the timeline to follow. 0 is the newest that holds the target.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	// +optional
	Timeline int64 `json:"timeline,omitempty"`

	// Delta is an absolute path: of a stopped server's data directory, of the same system
	// identifier, which becomes the new cluster's. What is right in it is kept, and only the
	// rest is fetched. It is on the machine of the agent; on Kubernetes there is none.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^(/[^\x00]*)?$`
	// +optional
	Delta string `json:"delta,omitempty"`
	// Limits is what the restore may take of the machine, the server that recovers left
	// aside.
	// +optional
	Limits *LimitsSpec `json:"limits,omitempty"`

	// Resolved is what the target was found to mean. It is filled in once,
	// before anything is fetched, and recovery is judged by it.
	// +optional
	Resolved *ResolvedTarget `json:"resolved,omitempty"`
}

// ResolvedTarget is one position on one timeline.
type ResolvedTarget struct {
	// Timeline is the one that StopLSN is on.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	Timeline int64 `json:"timeline"`
	// StopLSN is where recovery stops.
	// +required
	// +kubebuilder:validation:MaxLength=17
	// +kubebuilder:validation:Pattern=`^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$`
	StopLSN string `json:"stopLSN"`
	// StopInclusive keeps the record at StopLSN.
	StopInclusive bool `json:"stopInclusive"`
	// Immediate stops as soon as the backup is consistent.
	// +optional
	Immediate bool `json:"immediate,omitempty"`
	// EndLSN is what recovery must have reached.
	// +required
	// +kubebuilder:validation:MaxLength=17
	// +kubebuilder:validation:Pattern=`^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$`
	EndLSN string `json:"endLSN"`
	// BackupName is the backup that recovery starts from.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	BackupName string `json:"backupName"`
}

// ClusterList is several of them, as the Kubernetes API hands them out.
//
// +kubebuilder:object:root=true
type ClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []Cluster `json:"items"`
}

// GroupVersionKind is that of every Cluster.
func (c *Cluster) GroupVersionKind() schema.GroupVersionKind { return gvk(AppsGroup, KindCluster) }

// SetDefaults fills what was left unsaid.
func (c *Cluster) SetDefaults() {
	c.SetGroupVersionKind(c.GroupVersionKind())
	s := &c.Spec
	if s.ClusterDefinitionRef == "" {
		s.ClusterDefinitionRef = "postgresql"
	}
	if s.TerminationPolicy == "" {
		s.TerminationPolicy = TerminationDelete
	}
	if s.Replicas == 0 {
		s.Replicas = 1
	}
	if s.Storage.IsZero() {
		s.Storage = resource.MustParse("20Gi")
	}
	if r := s.Restore; r != nil && r.SourceNamespace == "" {
		r.SourceNamespace = c.Namespace
	}
}
