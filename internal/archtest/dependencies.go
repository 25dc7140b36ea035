// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	goModFile  = "go.mod"
	toolsFile  = "tools/go.mod"
	tableFile  = "DEPENDENCIES.md"
	toolsTitle = "tools" // rows below a heading that begins so are for tools/go.mod
)

// licences are those that an Apache-2.0 program may be linked with and handed on.
var licences = []string{"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC"}

// checkDependencies holds the rows of DEPENDENCIES.md against the direct
// requirements of go.mod and the tools of tools/go.mod.
func checkDependencies(root string) ([]Problem, error) {
	goMod, err := os.ReadFile(filepath.Join(root, goModFile))
	if err != nil {
		return nil, err
	}
	toolsMod, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(toolsFile)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	table, err := os.ReadFile(filepath.Join(root, tableFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	rows := parseTable(string(table))
	problems := compareRows(rows, directives(string(goMod), "require"), false, goModFile)
	return append(problems, compareRows(rows, directives(string(toolsMod), "tool"), true, toolsFile)...), nil
}

// row is a line of a table: a module, why it is here, what we would write
// instead, its licence.
type row struct {
	line  int
	tool  bool
	name  string
	cells []string
}

// parseTable returns the rows whose first cell is a name in backquotes.
func parseTable(text string) []row {
	var rows []row
	tool := false
	for i, line := range strings.Split(text, "\n") {
		if title, ok := strings.CutPrefix(line, "#"); ok {
			tool = strings.HasPrefix(strings.ToLower(strings.TrimLeft(title, "# ")), toolsTitle)
		}
		inner, ok := strings.CutPrefix(strings.TrimSpace(line), "|")
		if !ok {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(inner, "|"), "|")
		for j := range cells {
			cells[j] = strings.TrimSpace(cells[j])
		}
		if name := strings.Trim(cells[0], "`"); name != cells[0] {
			rows = append(rows, row{line: i + 1, tool: tool, name: name, cells: cells})
		}
	}
	return rows
}

func compareRows(rows []row, want []string, tool bool, source string) []Problem {
	var problems []Problem
	seen := make(map[string]bool)
	for _, r := range rows {
		if r.tool != tool {
			continue
		}
		complain := func(format string, args ...any) {
			problems = append(problems, Problem{Path: tableFile, Line: r.line, Text: r.name + ": " + fmt.Sprintf(format, args...)})
		}
		if !slices.Contains(want, r.name) {
			complain("is not in %s", source)
		}
		if seen[r.name] {
			complain("has two rows")
		}
		seen[r.name] = true
		if len(r.cells) != 4 || slices.Contains(r.cells, "") {
			complain("wants four cells: module, why, what we would write instead, licence")
			continue
		}
		for licence := range strings.SplitSeq(r.cells[3], " AND ") {
			if !slices.Contains(licences, licence) {
				complain("the licence %q is not one of %s", licence, strings.Join(licences, ", "))
			}
		}
	}
	for _, name := range want {
		if !seen[name] {
			problems = append(problems, Problem{Path: tableFile, Text: fmt.Sprintf("%s: is in %s and has no row", name, source)})
		}
	}
	return problems
}

// directives are the first arguments of each verb in a go.mod, alone or in a
// block, without those marked indirect.
func directives(goMod, verb string) []string {
	var names []string
	inBlock := false
	for line := range strings.Lines(goMod) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || strings.Contains(line, "// indirect"):
		case fields[0] == ")":
			inBlock = false
		case inBlock:
			names = append(names, fields[0])
		case len(fields) > 1 && fields[0] == verb && fields[1] == "(":
			inBlock = true
		case len(fields) > 1 && fields[0] == verb:
			names = append(names, fields[1])
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "//") })
}
