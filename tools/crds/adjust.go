// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// adjustments are what markers cannot say: about the values of a map, and about a field
// of a type that is used in several places with another meaning in each.
var adjustments = map[string]map[string]func(*apiext.JSONSchemaProps){
	"Cluster": {
		"spec.settings.*": func(s *apiext.JSONSchemaProps) {
			most := int64(8192)
			s.MaxLength, s.Pattern = &most, `^[^\x00\r\n]*$`
		},
	},
	"BackupPolicy": {
		"spec.schedule.snapshot.cronExpression":    usually("0 18 * * *"),
		"spec.schedule.datafile.cronExpression":    usually("0 18 * * *"),
		"spec.schedule.incremental.cronExpression": usually("0 */6 * * *"),
		"spec.schedule.logfile.cronExpression":     usually("*/5 * * * *"),
	},
}

func usually(text string) func(*apiext.JSONSchemaProps) {
	return func(s *apiext.JSONSchemaProps) { s.Default = &apiext.JSON{Raw: []byte(`"` + text + `"`)} }
}

func adjust(root *apiext.JSONSchemaProps, kind string) error {
	for path, f := range adjustments[kind] {
		if err := at(root, strings.Split(path, "."), f); err != nil {
			return fmt.Errorf("%s: %s: %w", kind, path, err)
		}
	}
	return nil
}

func at(s *apiext.JSONSchemaProps, path []string, f func(*apiext.JSONSchemaProps)) error {
	if len(path) == 0 {
		f(s)
		return nil
	}
	if path[0] == "*" {
		if s.AdditionalProperties == nil || s.AdditionalProperties.Schema == nil {
			return fmt.Errorf("it is not a map")
		}
		return at(s.AdditionalProperties.Schema, path[1:], f)
	}
	child, ok := s.Properties[path[0]]
	if !ok {
		return fmt.Errorf("there is no %s", path[0])
	}
	err := at(&child, path[1:], f)
	s.Properties[path[0]] = child
	return err
}
