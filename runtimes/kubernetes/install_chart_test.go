// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"encoding/json"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"

	files "github.com/kbcli/kbcli/deploy/helm"
)

// render is what the chart makes of values, by kind and name.
func render(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	c, err := loadChart("v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	v, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "kubeblocks", Namespace: "kb-system", IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	texts, err := engine.Engine{Strict: true}.Render(c, v)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for path, text := range texts {
		if strings.HasSuffix(path, "NOTES.txt") {
			continue
		}
		for doc := range strings.SplitSeq(text, "\n---\n") {
			var o struct {
				APIVersion, Kind string
				Metadata         struct{ Name, Namespace string }
			}
			if err := yaml.UnmarshalStrict([]byte(doc), &map[string]any{}); err != nil {
				t.Fatalf("%s: %v\n%s", path, err, doc)
			}
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if o.Kind == "" {
				continue
			}
			key := o.Kind + "/" + o.Metadata.Name
			if _, twice := out[key]; twice || o.APIVersion == "" || o.Metadata.Name == "" {
				t.Errorf("%s: %s is there twice, or has no name or version", path, key)
			}
			out[key] = doc
		}
	}
	return out, nil
}

func TestChartDefaults(t *testing.T) {
	got, err := render(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Deployment/kubeblocks", "ServiceAccount/kubeblocks", "ClusterRole/kubeblocks-operator", "ClusterRole/kubeblocks-agent", "Role/kubeblocks-operator",
		"ClusterRoleBinding/kubeblocks-operator", "RoleBinding/kubeblocks-operator", "ConfigMap/kubeblocks-settings",
		"Service/kubeblocks-metrics", "NetworkPolicy/kubeblocks", "PodDisruptionBudget/kubeblocks",
		"ServiceAccount/kubeblocks-snapshot-controller", "ClusterRole/kubeblocks-snapshot-controller", "RoleBinding/kubeblocks-snapshot-controller",
	} {
		if got[want] == "" {
			t.Errorf("there is no %s", want)
		}
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict([]byte(got["Deployment/kubeblocks"]), &d); err != nil {
		t.Fatal(err)
	}
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	if *d.Spec.Replicas != 2 || c.Image != "ghcr.io/kbcli/kbcli:v1.2.3" || d.Namespace != "kb-system" {
		t.Errorf("%d replicas of %s in %s", *d.Spec.Replicas, c.Image, d.Namespace)
	}
	s := c.SecurityContext
	if !*pod.SecurityContext.RunAsNonRoot || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the operator is not confined: %+v, %+v", pod.SecurityContext, s)
	}
	if c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil || len(c.Resources.Requests) == 0 {
		t.Error("the operator has no probes or asks for nothing")
	}
	for k := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[k] != d.Spec.Selector.MatchLabels[k] {
			t.Errorf("the pods lack label %s", k)
		}
	}
}

// Each key does something, and can be given.
func TestChartKeys(t *testing.T) {
	base, err := render(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	for values, want := range map[string][2]string{
		`{image: {repository: reg/kbcli}}`:                        {"Deployment/kubeblocks", "reg/kbcli:v1.2.3"},
		`{image: {tag: "7"}}`:                                     {"Deployment/kubeblocks", "--kbcli-image=ghcr.io/kbcli/kbcli:7"},
		`{image: {pullPolicy: Never}}`:                            {"Deployment/kubeblocks", "--image-pull-policy=Never"},
		`{imagePullSecrets: [one]}`:                               {"Deployment/kubeblocks", `name: "one"`},
		`{postgresql: {image: "reg/pg:{major}"}}`:                 {"Deployment/kubeblocks", "--postgresql-image=reg/pg:{major}"},
		`{replicas: 3}`:                                           {"Deployment/kubeblocks", "replicas: 3"},
		`{resources: {limits: {cpu: 2}}}`:                         {"Deployment/kubeblocks", "cpu: 2"},
		`{resources: {requests: {cpu: 7m}}}`:                      {"Deployment/kubeblocks", "cpu: 7m"},
		`{nodeSelector: {disk: fast}}`:                            {"Deployment/kubeblocks", "disk: fast"},
		`{tolerations: [{key: a, operator: Exists}]}`:             {"Deployment/kubeblocks", "operator: Exists"},
		`{affinity: {nodeAffinity: {}}}`:                          {"Deployment/kubeblocks", "nodeAffinity:"},
		`{priorityClassName: high}`:                               {"Deployment/kubeblocks", `priorityClassName: "high"`},
		`{podAnnotations: {a/b: c}}`:                              {"Deployment/kubeblocks", "a/b: c"},
		`{podLabels: {a: zz}}`:                                    {"Deployment/kubeblocks", "a: zz"},
		`{metrics: {port: 9000}}`:                                 {"Deployment/kubeblocks", "--metrics=:9000"},
		`{metrics: {enabled: false}}`:                             {"Service/kubeblocks-metrics", ""},
		`{networkPolicy: {enabled: false}}`:                       {"NetworkPolicy/kubeblocks", ""},
		`{networkPolicy: {metricsFrom: [{podSelector: {}}]}}`:     {"NetworkPolicy/kubeblocks", "podSelector: {}"},
		`{podDisruptionBudget: {enabled: false}}`:                 {"PodDisruptionBudget/kubeblocks", ""},
		`{replicas: 1}`:                                           {"PodDisruptionBudget/kubeblocks", ""},
		`{snapshot-controller: {enabled: true}}`:                  {"ConfigMap/kubeblocks-settings", `snapshot-controller.enabled: "true"`},
		`{snapshot-controller: {image: "reg/snap:1"}}`:            {"Deployment/kubeblocks", "--snapshot-controller-image=reg/snap:1"},
		`{dataProtection: {enableVolumeSnapshot: true}}`:          {"ConfigMap/kubeblocks-settings", `dataProtection.enableVolumeSnapshot: "true"`},
		`{dataProtection: {backupPVCName: backup-data}}`:          {"ConfigMap/kubeblocks-settings", `backupPVCName: "backup-data"`},
		`{dataProtection: {backupPVCInitCapacity: 1Gi}}`:          {"ConfigMap/kubeblocks-settings", `backupPVCInitCapacity: "1Gi"`},
		`{dataProtection: {backupPVCStorageClassName: csi-s3}}`:   {"ConfigMap/kubeblocks-settings", `backupPVCStorageClassName: "csi-s3"`},
		`{dataProtection: {backupPVCCreatePolicy: IfNotPresent}}`: {"ConfigMap/kubeblocks-settings", `backupPVCCreatePolicy: "IfNotPresent"`},
	} {
		var tree map[string]any
		if err := yaml.Unmarshal([]byte(values), &tree); err != nil {
			t.Fatal(err)
		}
		got, err := render(t, tree)
		if err != nil {
			t.Errorf("%s: %v", values, err)
			continue
		}
		text := got[want[0]]
		if text == base[want[0]] || want[1] == "" && text != "" || !strings.Contains(text, want[1]) {
			t.Errorf("%s: %s is\n%s", values, want[0], text)
		}
		if d := got["Deployment/kubeblocks"]; d != "" {
			if err := yaml.UnmarshalStrict([]byte(d), &appsv1.Deployment{}); err != nil {
				t.Errorf("%s: %v", values, err)
			}
		}
	}
}

func TestChartRefuses(t *testing.T) {
	for _, values := range []string{
		`{imgae: {}}`, `{image: {tga: a}}`, `{replicas: two}`, `{replicas: -1}`, `{image: {pullPolicy: Sometimes}}`, `{image: {tag: "a b"}}`,
		`{metrics: {port: 80}}`, `{dataProtection: {enableVolumSnapshot: true}}`, `{dataProtection: {enableVolumeSnapshot: "yes"}}`, `{resources: {limit: {}}}`,
	} {
		var tree map[string]any
		if err := yaml.Unmarshal([]byte(values), &tree); err != nil {
			t.Fatal(err)
		}
		_, err := render(t, tree)
		if err == nil {
			t.Errorf("%s was taken", values)
			continue
		}
		if reason, ok := schemaReason(err); !ok || reason == "" || strings.Contains(reason, "\n") {
			t.Errorf("%s: %q is not a sentence about settings: %v", values, reason, err)
		} else {
			t.Log(reason)
		}
	}
}

// values.yaml and values.schema.json have the same keys, and each has its comment.
func TestChartSchema(t *testing.T) {
	read := func(name string) []byte {
		b, err := fs.ReadFile(files.Files(), name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var schema any
	if err := json.Unmarshal(read("values.schema.json"), &schema); err != nil {
		t.Fatal(err)
	}
	var walk func(prefix string, s map[string]any) []string
	walk = func(prefix string, s map[string]any) []string {
		properties, ok := s["properties"].(map[string]any)
		if !ok {
			return []string{strings.TrimSuffix(prefix, ".")}
		}
		var out []string
		for k, v := range properties {
			out = append(out, walk(prefix+k+".", v.(map[string]any))...)
		}
		return out
	}
	known := slices.DeleteFunc(walk("", schema.(map[string]any)), func(k string) bool { return k == "global" })
	slices.Sort(known)
	var tree map[string]any
	if err := yaml.UnmarshalStrict(read("values.yaml"), &tree); err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, k := range chartKeys("", tree) {
		have = append(have, strings.TrimSuffix(k, "."))
	}
	slices.Sort(have)
	if !slices.Equal(known, have) {
		t.Errorf("the schema has %q\nvalues.yaml has %q", known, have)
	}
	r := &Runtime{log: slog.New(slog.DiscardHandler)}
	for _, k := range []string{"snapshot-controller.enabled", "dataProtection.backupPVCName", "image.tag", "nodeSelector.", "replicas"} {
		if !slices.Contains(r.SettingKeys(), k) {
			t.Errorf("%s is not among %q", k, r.SettingKeys())
		}
	}
}

func TestChartVersion(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "1.2.3-rc.1": "1.2.3-rc.1", "devel": "0.0.0-xdevel", "v1.0.0-4-g3fe0cc3-dirty": "1.0.0-4-g3fe0cc3-dirty", "3fe0cc3": "0.0.0-x3fe0cc3", "test": "0.0.0-xtest",
	} {
		if got := chartVersion(version); got != want {
			t.Errorf("%s became %s, not %s", version, got, want)
		}
		c, err := loadChart(version)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}
