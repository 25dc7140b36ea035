// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"maps"
	"regexp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// AddonHelm is the one type of addon.
const AddonHelm = "Helm"

// Addon is a piece that can be turned on: snapshots, storage on S3.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=addons,singular=addon,scope=Cluster,categories={kubeblocks}
// +kubebuilder:printcolumn:name="TYPE",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="STATUS",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="EXTRAS",type=string,JSONPath=`.spec.install.extras`
// +kubebuilder:printcolumn:name="AUTO-INSTALL",type=boolean,JSONPath=`.spec.installable.autoInstall`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type Addon struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +kubebuilder:default={}
	Spec   AddonSpec   `json:"spec"`
	Status AddonStatus `json:"status,omitzero"`
}

// AddonSpec says what the piece is and whether it is wanted.
type AddonSpec struct {
	// Description is a sentence for people.
	// +optional
	Description string `json:"description,omitempty"`
	// Type is how the piece is installed. It cannot be changed.
	// +kubebuilder:validation:Enum=Helm
	// +kubebuilder:default=Helm
	// +optional
	Type string `json:"type,omitempty"`
	// Installable says where the piece can be and is installed unasked.
	// +optional
	Installable InstallableSpec `json:"installable,omitzero"`
	// Install is what people want of the piece.
	// +optional
	Install InstallSpec `json:"install,omitzero"`
}

// InstallableSpec says where the piece can be and is installed unasked.
type InstallableSpec struct {
	// AutoInstall turns it on without being asked, where the selectors hold.
	// +kubebuilder:default=false
	AutoInstall bool `json:"autoInstall"`
	// Selectors must all hold. None: anywhere.
	// +optional
	Selectors []AddonSelector `json:"selectors,omitempty"`
}

// AddonSelector is a question about the place of installation.
type AddonSelector struct {
	// Key is what is asked for.
	// +required
	// +kubebuilder:validation:Enum=KubeGitVersion;KubeVersion;KubeProvider
	Key string `json:"key"`
	// Operator is how what is found is compared with the values.
	// +required
	// +kubebuilder:validation:Enum=Contains;DoesNotContain;MatchRegex;DoesNotMatchRegex
	Operator string `json:"operator"`
	// Values are compared with. Any of them will do.
	Values []string `json:"values,omitempty"`
}

// InstallSpec is what people want of the piece.
type InstallSpec struct {
	// Enabled turns it on.
	// +kubebuilder:default=false
	Enabled bool `json:"enabled"`
	// Extras are optional parts of it.
	// +optional
	Extras []string `json:"extras,omitempty"`
	// Values are what --set gave, secrets excepted: those go to a file or a Secret.
	// +kubebuilder:validation:MaxProperties=1000
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.matches('(?i)(secretkey|accesskey|password|token)$'))",message="a key is that of a secret, and objects do not hold secrets"
	// +optional
	Values map[string]string `json:"values,omitempty"`
}

// AddonPhase is the state of an addon in one word.
type AddonPhase string

// The phases of an addon.
const (
	AddonDisabled  AddonPhase = "Disabled"
	AddonEnabling  AddonPhase = "Enabling"
	AddonEnabled   AddonPhase = "Enabled"
	AddonDisabling AddonPhase = "Disabling"
	AddonFailed    AddonPhase = "Failed"
)

// AddonStatus is what came of it.
type AddonStatus struct {
	Phase              AddonPhase `json:"phase,omitempty"`
	Message            string     `json:"message,omitempty"`
	ObservedGeneration int64      `json:"observedGeneration,omitempty"`
}

// AddonList is several of them, as the Kubernetes API hands them out.
//
// +kubebuilder:object:root=true
type AddonList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []Addon `json:"items"`
}

// GroupVersionKind is that of every Addon.
func (a *Addon) GroupVersionKind() schema.GroupVersionKind { return gvk(ExtensionsGroup, KindAddon) }

// SetDefaults fills what was left unsaid.
func (a *Addon) SetDefaults() {
	a.SetGroupVersionKind(a.GroupVersionKind())
	if a.Spec.Type == "" {
		a.Spec.Type = AddonHelm
	}
}

var secretKeyForm = regexp.MustCompile(`(?i)(secretkey|accesskey|password|token)$`)

// Validate is everything that is wrong with the name and the spec.
func (a *Addon) Validate() error {
	var l FieldErrors
	l.subdomain("metadata.name", a.Name)
	l.metadata(a)
	if a.Spec.Type != AddonHelm {
		l.invalid("spec.type", a.Spec.Type, "is not known: there is Helm")
	}
	for _, k := range slices.Sorted(maps.Keys(a.Spec.Install.Values)) {
		if secretKeyForm.MatchString(k) {
			l.forbidden(joinPath("spec.install.values", k), "is a secret, and objects do not hold secrets")
		}
	}
	return l.orNil()
}

// ValidateUpdate allows every change but that of the type.
func (a *Addon) ValidateUpdate(old Object) error {
	var l FieldErrors
	immutable(&l, "spec.type", old.(*Addon).Spec.Type, a.Spec.Type)
	return l.orNil()
}
