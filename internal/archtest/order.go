// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"path"
	"strings"
)

// line is the order of imports, from left to right. A room may import itself and
// every room of the groups before its own.
var line = [][]string{
	{"engine/pg"},
	{"engine/blob"},
	{"engine/repository"},
	{"engine/archive", "engine/basebackup", "engine/catalog"},
	{"engine/retention", "engine/restore", "engine/checkup"},
	{"runtimes"},
	{"cli", "web"},
	{"cmd"},
}

// beside are the rooms that the line does not hold.
var beside = []string{"api", "deploy", "internal", "e2e", "bench"}

// room is the one that dir stands in and its place in the line, -1 beside it.
// The name is empty for a dir that stands nowhere.
func room(dir string) (name string, place int) {
	for i, group := range line {
		for _, r := range group {
			if within(dir, r) {
				return r, i
			}
		}
	}
	for _, r := range beside {
		if within(dir, r) {
			return r, -1
		}
	}
	return "", -1
}

// forTests tells whether dir is a package that only tests may use.
func forTests(dir string) bool {
	rest, ok := strings.CutPrefix(dir, "internal/")
	return ok && strings.HasPrefix(rest, "test")
}

var firstOfRuntimes = func() int {
	_, place := room("runtimes")
	return place
}()

// checkOrder holds each import of the module's own packages against the line.
func checkOrder(t *tree) []Problem {
	var problems []Problem
	for _, p := range t.packages {
		if name, _ := room(p.dir); name == "" {
			problems = append(problems, Problem{Path: p.dir, Text: "this folder has no place in the order of imports; give it one in internal/archtest"})
			continue
		}
		for _, f := range p.files {
			for _, spec := range f.ast.Imports {
				dir, ok := t.own(importPath(spec))
				if !ok {
					continue
				}
				if why := refuseImport(p.dir, f.test, dir); why != "" {
					problems = append(problems, t.problem(spec, "%s must not import %s: %s", p.dir, dir, why))
				}
			}
		}
	}
	return problems
}

// refuseImport says why a file of the package from must not import to; empty if
// it may.
func refuseImport(from string, test bool, to string) string {
	fromRoom, fromPlace := room(from)
	toRoom, toPlace := room(to)
	switch {
	case toRoom == "":
		return "it has no place in the order of imports"
	case fromRoom == "e2e":
		return ""
	case forTests(to):
		if test || forTests(from) || fromRoom == "bench" {
			return ""
		}
		return "it is for tests"
	case fromRoom == "bench":
		return ""
	case toRoom == "e2e" || toRoom == "bench":
		return "nothing imports " + toRoom
	case toRoom == "internal":
		return ""
	case fromRoom == "internal":
		if _, repository := room("engine/repository"); forTests(from) && toPlace >= 0 && toPlace <= repository {
			return ""
		}
		return "internal knows nothing of the rest"
	case toRoom == "api" || toRoom == "deploy":
		if fromRoom == toRoom || fromRoom == "deploy" || fromPlace >= firstOfRuntimes {
			return ""
		}
		return "that is for runtimes, cli, web and cmd"
	case fromPlace < 0:
		return fromRoom + " imports nothing of the line"
	case fromRoom == toRoom || toPlace < fromPlace:
		return ""
	case toPlace == fromPlace:
		return fmt.Sprintf("%s and %s stand side by side", path.Base(fromRoom), path.Base(toRoom))
	}
	return "the order is " + order()
}

// order is the line as the design writes it.
func order() string {
	var groups []string
	for _, group := range line {
		var names []string
		for _, r := range group {
			names = append(names, strings.TrimPrefix(r, "engine/"))
		}
		text := strings.Join(names, ", ")
		if len(names) > 1 {
			text = "{" + text + "}"
		}
		groups = append(groups, text)
	}
	return strings.Join(groups, " ← ")
}
