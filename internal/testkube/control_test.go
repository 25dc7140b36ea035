// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestControl(t *testing.T) {
	c := Control(t)
	c.Kubectl(t, "create", "namespace", "one")
	c.Apply(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: colours, namespace: one}, data: {sky: blue}}")
	if got := c.Kubectl(t, "-n", "one", "get", "configmap", "colours", "-o", "jsonpath={.data.sky}"); got != "blue" {
		t.Errorf("the sky is %q", got)
	}
	if Control(t) != c {
		t.Error("the next test got another one")
	}
}

func TestControlVersion(t *testing.T) {
	var v struct {
		ServerVersion struct {
			GitVersion string `json:"gitVersion"`
		} `json:"serverVersion"`
	}
	if err := json.Unmarshal([]byte(Control(t).Kubectl(t, "version", "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	if want := "v" + kubernetesVersion; v.ServerVersion.GitVersion != want {
		t.Errorf("it says it is %s, not %s", v.ServerVersion.GitVersion, want)
	}
}

func TestControlGuards(t *testing.T) {
	c := Control(t)
	c.Kubectl(t, "create", "namespace", "guarded")
	_, err := c.Try("", "-n", "guarded", "--as", "nobody", "get", "secrets")
	if err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("nobody may read secrets: %v", err)
	}
}
