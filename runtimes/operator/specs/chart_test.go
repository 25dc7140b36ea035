// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

// chartRights is the part of the chart that is made from the table.
const chartRights = "../../../deploy/helm/templates/clusterroles.yaml"

// The chart grants what stands in the table. With -update it does again.
func TestChartRights(t *testing.T) {
	var out bytes.Buffer
	out.WriteString("{{/* SPDX-License-Identifier: Apache-2.0 */}}\n" +
		"{{/* Made from the table in runtimes/operator/specs: go test ./runtimes/operator/specs -run TestChartRights -update */}}\n")
	var objects []any
	for _, r := range ClusterRoles() {
		objects = append(objects, r)
	}
	for _, r := range Roles("{{ .Release.Namespace }}") {
		objects = append(objects, r)
	}
	for _, o := range objects {
		b, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		out.Write(b)
	}
	if *update {
		if err := os.WriteFile(chartRights, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(filepath.Clean(chartRights))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, out.Bytes()) {
		t.Errorf("%s is stale: go test ./runtimes/operator/specs -run TestChartRights -update", chartRights)
	}
}
