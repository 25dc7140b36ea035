// SPDX-License-Identifier: Apache-2.0

package names

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// The longest name of a cluster still makes names that Kubernetes takes.
func TestLengths(t *testing.T) {
	long := strings.Repeat("a", v1alpha1.MaxClusterName)
	for _, name := range []string{StatefulSet(long), Pod(long, 15), Service(long), ReplicaService(long), SuperuserSecret(long)} {
		if errs := validation.IsDNS1035Label(name); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
	for k, v := range Labels(long) {
		if errs := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(v)...); len(errs) > 0 {
			t.Errorf("%s=%s: %v", k, v, errs)
		}
	}
}

func TestBelongs(t *testing.T) {
	for object, want := range map[string]bool{
		"my-pg-postgresql": true, "my-pg-postgresql-0": true, "my-pg-postgresql-superuser": true, "data-my-pg-postgresql-0": true,
		"my-pg": false, "other-my-pg-postgresql-0": false, "my-pg-postgresqls": false, "my-pg-2-postgresql-0": false,
	} {
		if got := Belongs(object, "my-pg"); got != want {
			t.Errorf("%s: %v", object, got)
		}
	}
}
