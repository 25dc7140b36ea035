// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"
)

// LimitsSpec is what one backup or one restore may take of the machine that it runs on.
// WAL that is archived meanwhile is not held up by it.
type LimitsSpec struct {
	// Memory is in bytes, 128Mi: what the work takes at most beside the agent itself. What
	// cannot be done with it is refused, and the reason says how much would do. Empty is
	// 256Mi and as much more as a very large database demands; in a container that has a
	// limit it is what that leaves.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0",message="is less than zero"
	// +optional
	Memory resource.Quantity `json:"memory,omitzero"`
	// Workers is how many threads compress or unpack at once. 0 is one for each core, as
	// far as the memory allows it.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1024
	// +optional
	Workers int32 `json:"workers,omitempty"`
	// Upload is bytes a second to the repository, 20Mi. Empty is no limit.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0",message="is less than zero"
	// +optional
	Upload resource.Quantity `json:"upload,omitzero"`
	// Download is bytes a second from the repository. Empty is no limit.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0",message="is less than zero"
	// +optional
	Download resource.Quantity `json:"download,omitzero"`
	// Nice is how far the work stands back for others that want the processor, as in
	// nice(1).
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=19
	// +optional
	Nice int32 `json:"nice,omitempty"`
	// IdleIO leaves the disk to others as long as they want it, as ionice -c 3 does.
	// +optional
	IdleIO bool `json:"idleIO,omitempty"`
}

// IsZero says that nothing is limited.
func (s *LimitsSpec) IsZero() bool {
	return s == nil || s.Memory.IsZero() && s.Workers == 0 && s.Upload.IsZero() && s.Download.IsZero() && s.Nice == 0 && !s.IdleIO
}

// Or fills what s leaves open from other.
func (s *LimitsSpec) Or(other *LimitsSpec) LimitsSpec {
	var out LimitsSpec
	for _, l := range []*LimitsSpec{other, s} {
		if l == nil {
			continue
		}
		for _, q := range []struct{ to, from *resource.Quantity }{{&out.Memory, &l.Memory}, {&out.Upload, &l.Upload}, {&out.Download, &l.Download}} {
			if !q.from.IsZero() {
				*q.to = q.from.DeepCopy()
			}
		}
		if l.Workers != 0 {
			out.Workers = l.Workers
		}
		if l.Nice != 0 {
			out.Nice = l.Nice
		}
		out.IdleIO = out.IdleIO || l.IdleIO
	}
	return out
}

func (s *LimitsSpec) validate(l *FieldErrors, path string) {
	if s == nil {
		return
	}
	for _, q := range []struct {
		name string
		q    *resource.Quantity
	}{{"memory", &s.Memory}, {"upload", &s.Upload}, {"download", &s.Download}} {
		if q.q.Sign() < 0 {
			l.invalid(path+"."+q.name, q.q.String(), "is less than zero")
		}
	}
	if s.Workers < 0 || s.Workers > 1024 {
		l.invalid(path+".workers", strconv.Itoa(int(s.Workers)), "is not a number from 0 to 1024")
	}
	if s.Nice < 0 || s.Nice > 19 {
		l.invalid(path+".nice", strconv.Itoa(int(s.Nice)), "is not a number from 0 to 19")
	}
}
