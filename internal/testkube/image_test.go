// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPackageNames(t *testing.T) {
	got := packageNames("# a comment\n\npatroni\nbash # the shell\n")
	if diff := cmp.Diff([]string{"bash", "patroni"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPackageVersion(t *testing.T) {
	for _, tt := range []struct {
		file, name, version string
		bad                 bool
	}{
		{file: "bash_5.2.15-2+b7_amd64.deb", name: "bash", version: "5.2.15-2+b7"},
		{file: "tzdata_2%3a2025b-0_all.deb", name: "tzdata", version: "2:2025b-0"},
		{file: "bash.deb", bad: true},
	} {
		name, version, err := packageVersion(tt.file)
		if name != tt.name || version != tt.version || (err != nil) != tt.bad {
			t.Errorf("%s: %q, %q, %v", tt.file, name, version, err)
		}
	}
}

func TestPostgreSQLArchive(t *testing.T) {
	first, err := PostgreSQLArchive()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := PostgreSQLArchive(); err != nil || again != first {
		t.Errorf("the second time it is %s, %v", again, err)
	}
}
