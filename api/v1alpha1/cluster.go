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

	Spec   ClusterSpec   `json:"spec"`
	Status ClusterStatus `json:"status,omitzero"`
}

// ClusterSpec is the PostgreSQL that is wanted.
type ClusterSpec struct {
	// ClusterDefinitionRef is the kind of database. There is one.
	// +kubebuilder:validation:Enum=postgresql
	// +kubebuilder:default=postgresql
	// +optional
	ClusterDefinitionRef string `json:"clusterDefinitionRef,omitempty"`

	// ClusterVersionRef is the major release, postgresql-13 to postgresql-18.
	// Empty is the newest that is installed; it is filled in once it is known.
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
	// +optional
	Storage resource.Quantity `json:"storage,omitzero"`

	// StorageClassName is the class of the volumes. Empty is the default class.
	// +optional
	StorageClassName string `json:"storageClassName,omitempty"`

	// Resources is what each server may use. Without it nothing is limited.
	// +optional
	Resources Resources `json:"resources,omitzero"`

	// Stopped keeps the data and ends the servers.
	// +optional
	Stopped bool `json:"stopped,omitempty"`

	// Settings are lines of postgresql.conf. Those that kbcli itself needs are refused.
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
	// +optional
	CPU *resource.Quantity `json:"cpu,omitempty"`
	// +optional
	Memory *resource.Quantity `json:"memory,omitempty"`
}

// LocalSpec places a server on one machine.
type LocalSpec struct {
	// Port is the TCP port; 0 is the first free one.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`

	// DataDirectory is absolute. Empty is a directory under the state directory.
	// +optional
	DataDirectory string `json:"dataDirectory,omitempty"`

	// Connect is a libpq connection string or URI, without a password: those are
	// read from a password file.
	// +optional
	Connect string `json:"connect,omitempty"`

	// Attached says that somebody else starts and stops the server.
	// +optional
	Attached bool `json:"attached,omitempty"`
}

// RestoreSpec is a moment of another cluster. At most one of Time, LSN, XID,
// Name and Latest is given; with none it is the end of Backup.
type RestoreSpec struct {
	SourceCluster string `json:"sourceCluster,omitempty"`

	// SourceNamespace is the namespace of the new cluster when empty.
	// +optional
	SourceNamespace string `json:"sourceNamespace,omitempty"`

	// SourceLineage tells apart clusters that had the same name, one after the
	// other. Empty is the newest.
	// +optional
	SourceLineage string `json:"sourceLineage,omitempty"`

	// Backup is the name of the Backup to start from. Empty is the best one.
	// +optional
	Backup string `json:"backup,omitempty"`

	// Time keeps what was committed at or before it.
	// +optional
	Time *MicroTime `json:"time,omitempty"`
	// LSN keeps what was written up to it, as in recovery_target_lsn.
	// +optional
	LSN string `json:"lsn,omitempty"`
	// XID keeps the transaction, as in recovery_target_xid.
	// +optional
	XID string `json:"xid,omitempty"`
	// Name is a restore point of pg_create_restore_point.
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
	// +optional
	Timeline int64 `json:"timeline,omitempty"`

	// Resolved is what the target was found to mean. It is filled in once,
	// before anything is fetched, and recovery is judged by it.
	// +optional
	Resolved *ResolvedTarget `json:"resolved,omitempty"`
}

// ResolvedTarget is one position on one timeline.
type ResolvedTarget struct {
	Timeline      int64  `json:"timeline"`
	StopLSN       string `json:"stopLSN"`
	StopInclusive bool   `json:"stopInclusive"`
	// Immediate stops as soon as the backup is consistent.
	// +optional
	Immediate bool `json:"immediate,omitempty"`
	// EndLSN is what recovery must have reached.
	EndLSN     string `json:"endLSN"`
	BackupName string `json:"backupName"`
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
