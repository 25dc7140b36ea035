// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// What a restore needs raises what nobody asked for, and refuses what cannot hold it.
func TestNeeds(t *testing.T) {
	copied := Needs{Bytes: 1000 << 20}
	lent := Needs{Bytes: 2 << 30, Snapshot: "VolumeSnapshot shop/b1", Driver: "disk.example", Class: "fast"}
	for name, test := range map[string]struct {
		need                   Needs
		storage, class, driver string
		grown, reason, set     string
	}{
		"room enough":              {copied, "20Gi", "", "disk.example", "20Gi", "", ""},
		"a copy that is too small": {copied, "400Mi", "", "disk.example", "1250Mi", "storage 400Mi is too small: the restore needs 1000Mi", "storage=1000Mi"},
		"just enough":              {copied, "1000Mi", "", "", "1250Mi", "", ""},
		"the size of a snapshot":   {lent, "2Gi", "fast", "disk.example", "2Gi", "", ""},
		"less than the snapshot":   {lent, "1Gi", "fast", "disk.example", "2Gi", "storage 1Gi is too small: VolumeSnapshot shop/b1 has 2Gi", "storage=2Gi"},
		"another driver": {
			lent, "2Gi", "tape", "tape.example", "2Gi",
			"volumes of storage class tape are made by tape.example, and VolumeSnapshot shop/b1 is of disk.example", "storageClass=fast",
		},
		"another default": {
			lent, "2Gi", "", "tape.example", "2Gi",
			"volumes of the default storage class are made by tape.example, and VolumeSnapshot shop/b1 is of disk.example", "storageClass=fast",
		},
		"a driver that nobody may tell": {lent, "2Gi", "tape", "", "2Gi", "", ""},
	} {
		spec := v1alpha1.ClusterSpec{Storage: resource.MustParse(test.storage), StorageClassName: test.class}
		got := NoFitError{}
		if e, ok := test.need.Judge(&spec, test.driver).(*NoFitError); ok {
			got = *e
		}
		if got.Reason != test.reason || got.Set != test.set {
			t.Errorf("%s: %q, %q", name, got.Reason, got.Set)
		}
		if test.need.Grow(&spec); spec.Storage.String() != test.grown {
			t.Errorf("%s: it grows to %s, want %s", name, spec.Storage.String(), test.grown)
		}
	}
}
