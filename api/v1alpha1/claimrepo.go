// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"regexp"

	"k8s.io/apimachinery/pkg/api/resource"
)

// ClaimCreatePolicy says who makes a claim.
//
// +kubebuilder:validation:Enum=IfNotPresent;Never
type ClaimCreatePolicy string

// The answers to that.
const (
	ClaimIfNotPresent ClaimCreatePolicy = "IfNotPresent" // the operator, if there is none of its name
	ClaimNever        ClaimCreatePolicy = "Never"        // somebody else
)

// ClaimAccessMode is how a volume is mounted, in Kubernetes' words.
//
// +kubebuilder:validation:Enum=ReadWriteOnce;ReadWriteMany;ReadWriteOncePod
type ClaimAccessMode string

// DefaultClaimMode is enough: one pod mounts the volume, and serves it to all others.
const DefaultClaimMode ClaimAccessMode = "ReadWriteOnce"

// ClaimRepo is a volume of Kubernetes. Its claim is in the namespace of the operator, and
// one pod there, which mounts it, serves it to every cluster.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.storageClassName) || self.storageClassName == "" ? !has(oldSelf.storageClassName) || oldSelf.storageClassName == "" : has(oldSelf.storageClassName) && self.storageClassName == oldSelf.storageClassName`,message="cannot be changed",fieldPath=".storageClassName"
type ClaimRepo struct {
	// ClaimName is the PersistentVolumeClaim, in the operator's namespace. It cannot be changed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed"
	ClaimName string `json:"claimName"`
	// StorageClassName is the class of a claim that is made. Empty is the default class.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	// +optional
	StorageClassName string `json:"storageClassName,omitempty"`
	// Capacity is what the claim asks for. It can grow, never shrink; a claim that asks for
	// more already stays as it is.
	// +kubebuilder:default="20Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="must be more than zero"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",message="a volume cannot shrink"
	// +optional
	Capacity resource.Quantity `json:"capacity,omitzero"`
	// AccessMode of a claim that is made. One pod mounts it, so ReadWriteOnce is enough
	// wherever the clusters run.
	// +kubebuilder:default=ReadWriteOnce
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed"
	// +optional
	AccessMode ClaimAccessMode `json:"accessMode,omitempty"`
	// CreatePolicy says whether the operator makes the claim if there is none.
	// +kubebuilder:default=IfNotPresent
	// +optional
	CreatePolicy ClaimCreatePolicy `json:"createPolicy,omitempty"`
}

// DefaultClaimCapacity is what a claim asks for if nobody says.
const DefaultClaimCapacity = "20Gi"

func (c *ClaimRepo) setDefaults() {
	if c.Capacity.IsZero() {
		c.Capacity = resource.MustParse(DefaultClaimCapacity)
	}
	if c.AccessMode == "" {
		c.AccessMode = DefaultClaimMode
	}
	if c.CreatePolicy == "" {
		c.CreatePolicy = ClaimIfNotPresent
	}
}

// claimRepoName is what a repository on a claim may be called: a Service is named for it.
var claimRepoName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

func (c *ClaimRepo) validate(l *FieldErrors, path string) {
	if c.ClaimName == "" {
		l.required(path + ".claimName")
	} else {
		l.subdomain(path+".claimName", c.ClaimName)
	}
	if c.StorageClassName != "" {
		l.subdomain(path+".storageClassName", c.StorageClassName)
	}
	l.positive(path+".capacity", &c.Capacity)
	switch c.AccessMode {
	case DefaultClaimMode, "ReadWriteMany", "ReadWriteOncePod":
	default:
		l.invalid(path+".accessMode", string(c.AccessMode), "is not one of ReadWriteOnce, ReadWriteMany, ReadWriteOncePod")
	}
	if c.CreatePolicy != ClaimIfNotPresent && c.CreatePolicy != ClaimNever {
		l.invalid(path+".createPolicy", string(c.CreatePolicy), "is not one of IfNotPresent, Never")
	}
}

func (c *ClaimRepo) validateUpdate(l *FieldErrors, path string, was *ClaimRepo) {
	immutable(l, path+".claimName", was.ClaimName, c.ClaimName)
	immutable(l, path+".storageClassName", was.StorageClassName, c.StorageClassName)
	immutable(l, path+".accessMode", was.AccessMode, c.AccessMode)
	if c.Capacity.Cmp(was.Capacity) < 0 {
		l.invalid(path+".capacity", c.Capacity.String(), "is less than "+was.Capacity.String()+": a volume cannot shrink")
	}
}

// VolumeStatus is how the volume of a repository stands, for the provider pvc.
type VolumeStatus struct {
	// Endpoint is where the volume is served, HOST:PORT. Empty until it was for the first time.
	Endpoint string `json:"endpoint,omitempty"`
	// Namespace is that of the claim.
	Namespace string `json:"namespace,omitempty"`
	// Message is why it is not served; empty while it is.
	Message string `json:"message,omitempty"`
	// Refused tells that it will not be until somebody changes something.
	Refused bool `json:"refused,omitempty"`
	// NotGrown is why the claim is smaller than what is asked for.
	NotGrown string `json:"notGrown,omitempty"`
	// Capacity is the size of the file system in bytes, Used how much of it is, in percent.
	Capacity int64 `json:"capacity,omitempty"`
	Used     int32 `json:"used,omitempty"`
}
