// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the golden files")

var images = Images{PostgreSQL: "registry.example/postgresql:{major}", Kbcli: "registry.example/kbcli:1"}

const slot = "kbcli_default_my_pg"

func cluster(change func(*v1alpha1.Cluster)) *v1alpha1.Cluster {
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "my-pg"}}
	c.Spec.ClusterVersionRef = "postgresql-15"
	if change != nil {
		change(c)
	}
	c.SetDefaults()
	return c
}

var shapes = map[string]func(*v1alpha1.Cluster){
	"small": nil,
	"large": func(c *v1alpha1.Cluster) {
		cpu, memory := resource.MustParse("4"), resource.MustParse("16Gi")
		c.Spec.Replicas, c.Spec.Storage, c.Spec.StorageClassName = 3, resource.MustParse("1Ti"), "fast"
		c.Spec.Resources = v1alpha1.Resources{CPU: &cpu, Memory: &memory}
		c.Spec.Settings = map[string]string{"work_mem": "64MB", "max_connections": "300", "archive_mode": "on"}
		c.Annotations = map[string]string{v1alpha1.AnnotationRestart: "2026-01-02T03:04:05Z"}
	},
	"restored": func(c *v1alpha1.Cluster) {
		c.Spec.Restore = &v1alpha1.RestoreSpec{SourceCluster: "old", Latest: true}
	},
}

// all is everything that a cluster is made of, as kubectl would print it.
func all(t *testing.T, c *v1alpha1.Cluster) []byte {
	t.Helper()
	config, err := ConfigMap(c, slot)
	if err != nil {
		t.Fatal(err)
	}
	objects := []any{StatefulSet(c, images, c.Spec.Replicas), config, ServiceAccount(c), Role(c), RoleBinding(c), ClusterRoleBinding(c)}
	for _, s := range Services(c) {
		objects = append(objects, s)
	}
	for _, s := range Passwords(c, func() string { return "secret" }) {
		objects = append(objects, s)
	}
	if pdb := DisruptionBudget(c); pdb != nil {
		objects = append(objects, pdb)
	}
	var out bytes.Buffer
	for _, o := range objects {
		b, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		out.Write(b)
	}
	return out.Bytes()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got)\n%s", name, diff)
	}
}

func TestObjects(t *testing.T) {
	for name, change := range shapes {
		got := all(t, cluster(change))
		golden(t, name+".yaml", got)
		if again := all(t, cluster(change)); !bytes.Equal(got, again) {
			t.Errorf("%s: the same cluster gave other objects", name)
		}
	}
}

func TestInstallation(t *testing.T) {
	var out bytes.Buffer
	for _, r := range ClusterRoles() {
		b, err := yaml.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		out.Write(b)
	}
	golden(t, "clusterroles.yaml", out.Bytes())
}

// Each container has to satisfy the pod security standard "restricted", and no password
// may be in an argument or as a value in the environment.
func TestRestricted(t *testing.T) {
	for name, change := range shapes {
		pod := StatefulSet(cluster(change), images, 1).Spec.Template.Spec
		if s := pod.SecurityContext; !*s.RunAsNonRoot || *s.RunAsUser == 0 || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: the pod's security is %+v", name, s)
		}
		for _, v := range pod.Volumes {
			if v.HostPath != nil {
				t.Errorf("%s: volume %s is the node's", name, v.Name)
			}
		}
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			s := c.SecurityContext
			if s == nil || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 || !*s.ReadOnlyRootFilesystem {
				t.Errorf("%s: container %s has %+v", name, c.Name, s)
			}
			for _, e := range c.Env {
				if strings.HasSuffix(e.Name, "PASSWORD") && (e.Value != "" || e.ValueFrom.SecretKeyRef == nil) {
					t.Errorf("%s: container %s has %s as a value", name, c.Name, e.Name)
				}
			}
			if len(c.VolumeMounts) == 0 {
				t.Errorf("%s: container %s mounts nothing", name, c.Name)
			}
		}
	}
}

// A pod is made anew for what it reads when it starts, and for nothing else.
func TestTemplateChanges(t *testing.T) {
	base := StatefulSet(cluster(nil), images, 1).Spec.Template
	for name, test := range map[string]struct {
		change func(*v1alpha1.Cluster)
		same   bool
	}{
		"setting":  {func(c *v1alpha1.Cluster) { c.Spec.Settings = map[string]string{"work_mem": "1GB"} }, true},
		"replicas": {func(c *v1alpha1.Cluster) { c.Spec.Replicas = 3 }, true},
		"storage":  {func(c *v1alpha1.Cluster) { c.Spec.Storage = resource.MustParse("40Gi") }, true},
		"memory":   {func(c *v1alpha1.Cluster) { q := resource.MustParse("1Gi"); c.Spec.Resources.Memory = &q }, false},
		"restart":  {func(c *v1alpha1.Cluster) { c.Annotations = map[string]string{v1alpha1.AnnotationRestart: "now"} }, false},
	} {
		if got := cmp.Equal(base, StatefulSet(cluster(test.change), images, 1).Spec.Template); got != test.same {
			t.Errorf("%s: the template is the same: %v", name, got)
		}
	}
}

// What the operator grants it must have itself: else the API server refuses the Role.
func TestOperatorCoversAgents(t *testing.T) {
	have := map[string]bool{}
	for _, r := range operatorRights() {
		for _, res := range r.Resources {
			for _, v := range r.Verbs {
				have[r.Group+"/"+res+"/"+v] = true
			}
		}
	}
	for _, r := range slices.Concat(podRights("my-pg"), agentRights()) {
		for _, res := range r.Resources {
			for _, v := range r.Verbs {
				if key := r.Group + "/" + res + "/" + v; !have[key] {
					t.Errorf("the operator lacks %s, which agents have", key)
				}
			}
		}
	}
}

func TestRights(t *testing.T) {
	for who, rights := range rights("my-pg") {
		for _, r := range rights {
			who0, what, ok := strings.Cut(r.For, ": ")
			if !ok || who0 == "" || what == "" {
				t.Errorf("%s: %v %v: %q does not say who needs it for what", who, r.Resources, r.Verbs, r.For)
			}
			if slices.Contains(r.Verbs, "*") || slices.Contains(r.Resources, "*") || r.Group == "*" {
				t.Errorf("%s: %v %v is everything", who, r.Resources, r.Verbs)
			}
			if !slices.IsSorted(r.Verbs) {
				t.Errorf("%s: %v is not in order", who, r.Verbs)
			}
			if len(r.Names) > 0 && (slices.Contains(r.Verbs, "create") || slices.Contains(r.Verbs, "list") || slices.Contains(r.Verbs, "watch")) {
				t.Errorf("%s: %v %v does nothing with names", who, r.Resources, r.Verbs)
			}
		}
		if strings.HasPrefix(who, "pods") {
			for _, r := range rights {
				if slices.Contains(r.Resources, "secrets") {
					t.Errorf("%s may read secrets", who)
				}
			}
		}
	}
}

// The longest name of a Cluster must fit wherever it goes.
func TestNamesFit(t *testing.T) {
	c := strings.Repeat("x", v1alpha1.MaxClusterName)
	for _, name := range []string{ReplicasService(c), podsService(c), ConfigEndpoints(c), FailoverEndpoints(c), PodName(c, 15), StatefulSetName(c) + "-0123456789"} {
		if len(name) > 63 {
			t.Errorf("%s has %d characters", name, len(name))
		}
	}
	for pod, want := range map[string]int{"a-postgresql-0": 0, "a-postgresql-12": 12, "a-postgresql-01": -1, "a-postgresql-": -1, "b-postgresql-0": -1, "a-postgresql--1": -1} {
		if got := Ordinal("a", pod); got != want {
			t.Errorf("Ordinal(%s) = %d, want %d", pod, got, want)
		}
	}
	if key, ok := SecretKey(SecretPath("s3")); key != "s3" || !ok {
		t.Errorf("SecretKey: %s, %v", key, ok)
	}
	if _, ok := SecretKey("/etc/shadow"); ok {
		t.Error("a file of the machine was taken for a secret of a repository")
	}
}
