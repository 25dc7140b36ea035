// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const policyHead = "apiVersion: dataprotection.kubeblocks.io/v1alpha1\nkind: BackupPolicy\nmetadata:\n  name: p\n  namespace: default\n"

func TestDecodeErrors(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"near key", policyHead + "spec:\n  schedule:\n    logfile:\n      enabled: true\n", `9: unknown field "spec.schedule.logfile.enabled" (did you mean "enable"?)`},
		{"far key", policyHead + "spec:\n  retention:\n    colour: red\n", `8: unknown field "spec.retention.colour" (known: ttl, grace, minBackups, maxBackups)`},
		{"key in another case", policyHead + "spec:\n  clusterref: x\n", `7: unknown field "spec.clusterref" (did you mean "clusterRef"?)`},
		{
			"several", policyHead + "spec:\n  schedul: {}\n  retention: 7d\n  schedule:\n    logfile:\n      enable: yes\n",
			`7: unknown field "spec.schedul" (did you mean "schedule"?); 8: spec.retention: "7d" is not a block of fields; 11: spec.schedule.logfile.enable: "yes" is not true or false`,
		},
		{"twice", policyHead + "spec:\n  clusterRef: a\n  clusterRef: b\n", `8: field "spec.clusterRef" is given twice`},
		{"twice at the top", policyHead + "spec: {}\nspec: {}\n", `7: field "spec" is given twice`},
		{"twice in JSON", `{"apiVersion":"apps.kubeblocks.io/v1alpha1","kind":"Cluster",` + "\n" + `"spec":{"stopped":true,` + "\n" + `"stopped":false}}`, `3: field "spec.stopped" is given twice`},
		{"twice in labels", "apiVersion: apps.kubeblocks.io/v1alpha1\nkind: Cluster\nmetadata:\n  labels:\n    a.b/c: x\n    a.b/c: y\n", `6: field "metadata.labels[\"a.b/c\"]" is given twice`},
		{"quantity", policyHead + "spec:\n  archive:\n    spool:\n      limit: 8 Gi\n", `9: spec.archive.spool.limit: "8 Gi" is not a quantity such as 20Gi or 500m`},
		{"duration", policyHead + "spec:\n  archive:\n    tailInterval: 1\n", `8: spec.archive.tailInterval: "1" is not a duration such as 1s or 5m`},
		{"time", "apiVersion: apps.kubeblocks.io/v1alpha1\nkind: Cluster\nspec:\n  restore:\n    time: 2023-04-17 11:56\n", `5: spec.restore.time: "2023-04-17 11:56" is not a time such as 2023-04-17T11:56:40.000000Z`},
		{"number", "apiVersion: apps.kubeblocks.io/v1alpha1\nkind: Cluster\nspec:\n  replicas: \"3\"\n  local:\n    port: 70000000000\n", `4: spec.replicas: "3" is not a whole number; 6: spec.local.port: "70000000000" is not a whole number`},
		{"list", "apiVersion: apps.kubeblocks.io/v1alpha1\nkind: Cluster\nspec: []\n", `3: spec: must be a block of fields`},
		{"kind", "apiVersion: apps.kubeblocks.io/v1alpha1\nkind: Clusters\n", `2: kind: "Clusters" is not known (did you mean "Cluster"?)`},
		{"group", "apiVersion: apps.kubeblocks.io/v1alpha1\nkind: Backup\n", `1: apiVersion: "apps.kubeblocks.io/v1alpha1" is not that of a Backup: dataprotection.kubeblocks.io/v1alpha1 is`},
		{"neither", "metadata: {}\n", `1: apiVersion: must be given; 1: kind: must be given`},
		{"scalar", "hello\n", `1: is not an object with apiVersion and kind`},
		{"empty", "", `line 1: the text is empty`},
		{"comment", "# nothing\n", `line 1: the text is empty`},
		{"two documents", policyHead + "---\n" + policyHead, `line 6: a second document begins: one object at a time`},
		{"anchor", policyHead + "spec: &a\n  clusterRef: x\n", `line 6: anchors and aliases are not taken`},
		{"tag", policyHead + "spec: !!binary aGk=\n", `line 6: tags such as !!binary are not taken`},
		{"truncated", policyHead + "spec:\n  clusterRef: \"my-", `line 7: found unexpected end of stream`},
		{"broken", policyHead + "spec:\n  a: b: c\n", `line 7: mapping values are not allowed in this context`},
		{"flow left open", policyHead + "spec: {\n  clusterRef: x\n  a: b\n", `line 6: did not find expected ',' or '}'`},
		{"indented too little", policyHead + "spec:\n    clusterRef: x\n  retention: {}\n", `line 8: did not find expected key`},
		{"tab", policyHead + "spec:\n\tclusterRef: x\n", `line 7: found character that cannot start any token`},
		{"long", strings.Repeat("#", MaxBytes+1), fmt.Sprintf("the text has %d bytes, at most %d are read", MaxBytes+1, MaxBytes)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Decode([]byte(c.in))
			if err == nil {
				t.Fatal("no error")
			}
			got := err.Error()
			var l FieldErrors
			if errors.As(err, &l) {
				var parts []string
				for _, e := range l {
					parts = append(parts, fmt.Sprintf("%d: %s", e.Line, e))
				}
				got = strings.Join(parts, "; ")
			} else if s := (*SyntaxError)(nil); !errors.As(err, &s) {
				t.Errorf("the error is a %T", err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDecodeForgives(t *testing.T) {
	for _, c := range []struct{ name, in string }{
		{"numbers for texts", "apiVersion: apps.kubeblocks.io/v1alpha1\nkind: Cluster\nspec:\n  settings:\n    max_connections: 0200\n    fsync: on\n    jit: true\n    date: 2023-04-17\n  storage: 1024\n  stopped: null\n"},
		{"JSON with tabs", "{\t\"apiVersion\":\t\"apps.kubeblocks.io\\/v1alpha1\", \"kind\": \"Cluster\", \"spec\": {\"settings\": {\"max_connections\": \"0200\", \"fsync\": \"on\", \"jit\": \"true\", \"date\": \"2023-04-17\"}, \"storage\": \"1024\"}}"},
		{"document marks", "---\napiVersion: apps.kubeblocks.io/v1alpha1\nkind: Cluster\nspec: {settings: {max_connections: '0200', fsync: on, jit: 'true', date: \"2023-04-17\"}, storage: 1024}\n...\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := Decode([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"max_connections": "0200", "fsync": "on", "jit": "true", "date": "2023-04-17"}
			if diff := cmp.Diff(want, o.(*Cluster).Spec.Settings); diff != "" {
				t.Error(diff)
			}
			if s := o.(*Cluster).Spec.Storage; s.Value() != 1024 {
				t.Error(s.String())
			}
		})
	}
}

func TestLocate(t *testing.T) {
	text := policyHead + "spec:\n  retention:\n    ttl: 7x\n"
	o, err := Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o.SetDefaults()
	o.(*BackupPolicy).Spec.Archive.Mode = "x"
	var l FieldErrors
	if !errors.As(o.Validate(), &l) {
		t.Fatal("valid")
	}
	Locate([]byte(text), l)
	got := map[string]int{}
	for _, e := range l {
		got[e.Path] = e.Line
	}
	want := map[string]int{"spec.clusterRef": 6, "spec.retention.ttl": 8, "spec.archive.mode": 6}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"enable", "cronExpression", "ttl", "schedule"}
	for in, want := range map[string]string{"enabled": "enable", "ENABLE": "enable", "enalbe": "enable", "cronexpresion": "cronExpression", "tl": "ttl", "x": "", "retention": "", "": ""} {
		if got := Nearest(in, known); got != want {
			t.Errorf("Nearest(%q) is %q, want %q", in, got, want)
		}
	}
}

// Whatever decodes comes back the same, and nothing makes Decode panic.
func FuzzDecode(f *testing.F) {
	for _, o := range full() {
		o.SetDefaults()
		b, err := Encode(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"apiVersion":"apps.kubeblocks.io/v1alpha1","kind":"Cluster","metadata":{"managedFields":[{"fieldsV1":{"a":1}}],"labels":{"a":"\u2028 \u007f"}}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := Decode(in)
		var l FieldErrors
		if errors.As(err, &l) {
			Locate(in, l)
		}
		if err != nil {
			return
		}
		// Without defaults a quantity of 0 would be there once and absent the next time.
		o.SetDefaults()
		_ = o.Validate()
		first, err := Encode(o)
		if err != nil {
			return // a time in the year 10000
		}
		back, err := Decode(first)
		if err != nil {
			t.Fatalf("%v in:\n%s", err, first)
		}
		second, err := Encode(back)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%v: %s", err, cmp.Diff(string(first), string(second)))
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	text, err := os.ReadFile("testdata/backuppolicy.yaml")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}
