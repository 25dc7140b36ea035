// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"cmp"
	"fmt"
	"slices"
)

// Problem is one thing to put right, or with Note set, one to think about.
type Problem struct {
	Path string // relative to the module's root
	Line int    // 0 when it concerns the whole of Path
	Text string
	Note bool
}

func (p Problem) String() string {
	note := ""
	if p.Note {
		note = "note: "
	}
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s%s", p.Path, note, p.Text)
	}
	return fmt.Sprintf("%s:%d: %s%s", p.Path, p.Line, note, p.Text)
}

// Check reads the module in the directory root and returns what is wrong with
// it, by path and line. An error says that it could not be read.
func Check(root string) ([]Problem, error) {
	t, err := load(root)
	if err != nil {
		return nil, err
	}
	var all []Problem
	for _, rule := range []func(*tree) []Problem{
		checkOrder, checkEngine, checkKubernetes, checkDocs, checkFiles, checkExported, checkSkips,
	} {
		all = append(all, rule(t)...)
	}
	dependencies, err := checkDependencies(root)
	if err != nil {
		return nil, err
	}
	all = append(all, dependencies...)
	slices.SortFunc(all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
	return all, nil
}
