// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// setting is one key=value of --set.
type setting struct{ key, value string }

var settingKey = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*=`)

// parseSets reads the values of --set. A comma begins another setting when
// key= follows it, so that 0 6,18 * * * needs no quotes; `\,` never does.
func parseSets(texts []string) ([]setting, error) {
	var out []setting
	for _, text := range texts {
		for _, part := range splitSets(text) {
			if !settingKey.MatchString(part) {
				return nil, usage("%q is not key=value", redact(part))
			}
			k, v, _ := strings.Cut(part, "=")
			out = append(out, setting{k, v})
		}
	}
	return out, nil
}

func splitSets(text string) []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == ',':
			part.WriteByte(',')
			i++
		case text[i] == ',' && (i+1 == len(text) || settingKey.MatchString(text[i+1:])):
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(text[i])
		}
	}
	return append(parts, part.String())
}

// redact keeps the beginning of what may be a secret.
func redact(s string) string {
	if len(s) > 12 {
		return s[:12] + "…"
	}
	return s
}

// readValues reads a YAML file of settings, nested or with dots.
func readValues(path string) ([]setting, error) {
	tree, err := readTree(path)
	return flatten(nil, "", tree), err
}

// readTree reads a YAML file.
func readTree(path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, usage("read %s: it is not YAML", path)
	}
	return tree, nil
}

func flatten(out []setting, prefix string, tree map[string]any) []setting {
	for _, k := range slices.Sorted(maps.Keys(tree)) {
		switch v := tree[k].(type) {
		case map[string]any:
			out = flatten(out, prefix+k+".", v)
		case nil:
		default:
			out = append(out, setting{prefix + k, fmt.Sprint(v)})
		}
	}
	return out
}

// unknownKey is the error for a key that is none of known, with the nearest.
func unknownKey(key string, known []string) error {
	p := usage("unknown key %q", key)
	if near := v1alpha1.Nearest(key, known); near != "" {
		return p.hints("did you mean %q?", near)
	}
	return p.hints("there are: %s", strings.Join(known, ", "))
}
