// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

const (
	api = "../../api/v1alpha1"
	out = "../../deploy/helm/crds"
)

// TestCurrent: what lies there is what the source makes.
func TestCurrent(t *testing.T) {
	files, err := generate(api)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(groupOf)+1 {
		t.Errorf("%d files", len(files))
	}
	for name, want := range files {
		dir := out
		if name == deepCopies {
			dir = api
		}
		have, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s is not what api/v1alpha1 says now (%v): make generate", name, err)
		}
	}
	there, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if files[filepath.Base(path)] == nil {
			t.Errorf("nobody makes %s any more", path)
		}
	}
}

// TestExplained: kubectl explain has words for every field that people write.
func TestExplained(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(out, "*.yaml"))
	if err != nil || len(files) != len(groupOf) {
		t.Fatalf("%d definitions, %v", len(files), err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var d apiext.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &d); err != nil {
			t.Fatal(err)
		}
		explained(t, d.Spec.Names.Kind+".spec", d.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"])
	}
}

func explained(t *testing.T, path string, s apiext.JSONSchemaProps) {
	if s.Description == "" {
		t.Errorf("%s is not explained: write a comment in api/v1alpha1", path)
	}
	for name, child := range s.Properties {
		explained(t, path+"."+name, child)
	}
}
