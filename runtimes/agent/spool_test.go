// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// The spool takes what the policy allows, and no more than its volume can give.
func TestSpoolLimit(t *testing.T) {
	for _, test := range []struct {
		policy  string
		most    int64
		bounded bool
		want    int64
	}{
		{"", 0, false, 8 << 30},
		{"1Gi", 0, false, 1 << 30},
		{"8Gi", 50 << 20, true, 50 << 20},
		{"64Mi", 1 << 30, true, 64 << 20},
		{"8Gi", 0, true, 8 << 30}, // the volume cannot be asked
	} {
		p := New(Config{})
		if test.bounded {
			p.cfg.SpoolMost = func() int64 { return test.most }
		}
		var spec v1alpha1.ArchiveSpec
		if test.policy != "" {
			spec.Spool.Limit = resource.MustParse(test.policy)
		}
		if got := p.spoolLimit(spec); got != test.want {
			t.Errorf("%q on a volume that gives %d: %d, want %d", test.policy, test.most, got, test.want)
		}
	}
}
