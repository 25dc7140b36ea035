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
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type Addon struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	Spec   AddonSpec   `json:"spec"`
	Status AddonStatus `json:"status,omitzero"`
}

// AddonSpec says what the piece is and whether it is wanted.
type AddonSpec struct {
	// +optional
	Description string `json:"description,omitempty"`
	// +kubebuilder:validation:Enum=Helm
	// +kubebuilder:default=Helm
	// +optional
	Type string `json:"type,omitempty"`
	// +optional
	Installable InstallableSpec `json:"installable,omitzero"`
	// +optional
	Install InstallSpec `json:"install,omitzero"`
}

// InstallableSpec says where the piece can be and is installed unasked.
type InstallableSpec struct {
	AutoInstall bool `json:"autoInstall"`
	// Selectors must all hold. None: anywhere.
	// +optional
	Selectors []AddonSelector `json:"selectors,omitempty"`
}

// AddonSelector is a question about the place of installation.
type AddonSelector struct {
	// +kubebuilder:validation:Enum=KubeGitVersion;KubeVersion;KubeProvider
	Key string `json:"key"`
	// +kubebuilder:validation:Enum=Contains;DoesNotContain;MatchRegex;DoesNotMatchRegex
	Operator string   `json:"operator"`
	Values   []string `json:"values,omitempty"`
}

// InstallSpec is what people want of the piece.
type InstallSpec struct {
	Enabled bool `json:"enabled"`
	// Extras are optional parts of it.
	// +optional
	Extras []string `json:"extras,omitempty"`
	// Values are what --set gave, secrets excepted: those go to a file or a Secret.
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
