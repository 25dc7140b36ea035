// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The groups of the objects, and the one version they share.
const (
	AppsGroup           = "apps.kubeblocks.io"
	DataProtectionGroup = "dataprotection.kubeblocks.io"
	ExtensionsGroup     = "extensions.kubeblocks.io"
	Version             = "v1alpha1"
)

// The kinds, as the field `kind` spells them.
const (
	KindCluster      = "Cluster"
	KindBackupPolicy = "BackupPolicy"
	KindBackup       = "Backup"
	KindBackupRepo   = "BackupRepo"
	KindAddon        = "Addon"
)

// The labels and annotations that have a meaning here.
const (
	// LabelCluster is on everything that belongs to a cluster and holds its name.
	LabelCluster = "app.kubernetes.io/instance"
	// LabelBackupType is on each Backup and holds its BackupType.
	LabelBackupType = "dataprotection.kubeblocks.io/backup-type"
	// LabelScheduled is on a Backup that a schedule made, and holds the name of
	// the policy. A Backup without it was asked for by hand, and no ttl ends it.
	LabelScheduled = "dataprotection.kubeblocks.io/scheduled-by"
	// AnnotationDefaultPolicy is "true" on the policy that a backup uses when none is named.
	AnnotationDefaultPolicy = "dataprotection.kubeblocks.io/is-default-policy"
	// AnnotationRestart on a Cluster asks for one restart of its servers: each new
	// value, a moment in RFC 3339, is one.
	AnnotationRestart = "apps.kubeblocks.io/restarted-at"
)

// Object is any of the nouns: *Cluster, *BackupPolicy, *Backup, *BackupRepo, *Addon.
//
// +kubebuilder:object:generate=false
type Object interface {
	metav1.Object
	runtime.Object

	// GroupVersionKind is that of the type, whether or not apiVersion and kind are filled in.
	GroupVersionKind() schema.GroupVersionKind
	// SetGroupVersionKind fills apiVersion and kind. Only the type's own value makes sense.
	SetGroupVersionKind(schema.GroupVersionKind)

	// SetDefaults fills what was left unsaid, apiVersion and kind too.
	SetDefaults()
	// Validate is nil or FieldErrors: everything that is wrong with the name,
	// the namespace and the spec, after SetDefaults.
	Validate() error
	// ValidateUpdate is nil or FieldErrors: the changes from old that are not
	// allowed. It does not repeat Validate. Old must be of the same kind.
	ValidateUpdate(old Object) error
}

// Kind is what there is to know about one kind of object.
//
// +kubebuilder:object:generate=false
type Kind struct {
	Name       string   // "BackupPolicy"
	Group      string   // "dataprotection.kubeblocks.io"
	Plural     string   // "backuppolicies"
	Singular   string   // "backuppolicy"
	ShortNames []string // "bp"
	Namespaced bool     // false: one for the whole installation
	New        func() Object
	NewList    func() runtime.Object // *ClusterList
}

// Resource is the full plural, as errors print it: "clusters.apps.kubeblocks.io".
func (k Kind) Resource() string { return k.Plural + "." + k.Group }

// GroupVersionKind is what apiVersion and kind say together.
func (k Kind) GroupVersionKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: k.Group, Version: Version, Kind: k.Name}
}

// GroupVersionResource is what a path of the Kubernetes API is made of.
func (k Kind) GroupVersionResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.Group, Version: Version, Resource: k.Plural}
}

var kinds = []Kind{
	{Name: KindCluster, Group: AppsGroup, Plural: "clusters", Singular: "cluster", Namespaced: true, New: func() Object { return new(Cluster) }, NewList: func() runtime.Object { return new(ClusterList) }},
	{Name: KindBackupPolicy, Group: DataProtectionGroup, Plural: "backuppolicies", Singular: "backuppolicy", ShortNames: []string{"bp"}, Namespaced: true, New: func() Object { return new(BackupPolicy) }, NewList: func() runtime.Object { return new(BackupPolicyList) }},
	{Name: KindBackup, Group: DataProtectionGroup, Plural: "backups", Singular: "backup", Namespaced: true, New: func() Object { return new(Backup) }, NewList: func() runtime.Object { return new(BackupList) }},
	{Name: KindBackupRepo, Group: DataProtectionGroup, Plural: "backuprepos", Singular: "backuprepo", ShortNames: []string{"br"}, New: func() Object { return new(BackupRepo) }, NewList: func() runtime.Object { return new(BackupRepoList) }},
	{Name: KindAddon, Group: ExtensionsGroup, Plural: "addons", Singular: "addon", New: func() Object { return new(Addon) }, NewList: func() runtime.Object { return new(AddonList) }},
}

// Kinds lists every kind, in the order of the package comment.
func Kinds() []Kind { return slices.Clone(kinds) }

// LookupKind finds a kind by any word that people use for it: "Cluster",
// "cluster", "clusters", "bp", "clusters.apps.kubeblocks.io", in any case.
func LookupKind(word string) (Kind, bool) {
	w := strings.ToLower(word)
	for _, k := range kinds {
		if w == strings.ToLower(k.Name) || w == k.Plural || w == k.Singular ||
			w == k.Resource() || w == k.Singular+"."+k.Group || slices.Contains(k.ShortNames, w) {
			return k, true
		}
	}
	return Kind{}, false
}

// KindOf is the kind of o. It panics for a type that is not one of ours.
func KindOf(o Object) Kind {
	k, ok := LookupKind(o.GroupVersionKind().Kind)
	if !ok {
		panic(fmt.Sprintf("v1alpha1: %T is not a registered kind", o))
	}
	return k
}

// KindFor is the kind of the pointer type T, such as *Cluster.
func KindFor[T Object]() Kind {
	t := reflect.TypeFor[T]()
	for _, k := range kinds {
		if reflect.TypeOf(k.New()) == t {
			return k
		}
	}
	panic(fmt.Sprintf("v1alpha1: %v is not a registered kind", t))
}

// SpecOf points at the spec of o.
func SpecOf(o Object) any { return reflect.ValueOf(o).Elem().FieldByName("Spec").Addr().Interface() }

// StatusOf points at the status of o.
func StatusOf(o Object) any {
	return reflect.ValueOf(o).Elem().FieldByName("Status").Addr().Interface()
}

// Assign makes *dst what *src is. Both must be of the same kind. The copy is
// shallow: src must not be used afterwards.
func Assign(dst, src Object) { reflect.ValueOf(dst).Elem().Set(reflect.ValueOf(src).Elem()) }

// AssignStatus gives dst the status of src, as Assign does the whole.
func AssignStatus(dst, src Object) {
	reflect.ValueOf(StatusOf(dst)).Elem().Set(reflect.ValueOf(StatusOf(src)).Elem())
}

func gvk(group, kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: group, Version: Version, Kind: kind}
}
