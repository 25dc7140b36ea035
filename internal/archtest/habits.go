// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

const (
	spdx       = "// SPDX-License-Identifier: Apache-2.0\n"
	mostLines  = 600
	manyNames  = 40
	mostNames  = 60
	docFile    = "doc.go"
	spdxPrefix = "SPDX-"
)

// checkDocs wants one package comment for each directory, in doc.go.
func checkDocs(t *tree) []Problem {
	var problems []Problem
	for _, p := range t.packages {
		found := false
		for _, f := range p.files {
			doc := f.ast.Doc.Text()
			switch {
			case f.test || f.generated || doc == "":
			case strings.HasPrefix(doc, spdxPrefix):
				problems = append(problems, t.problem(f.ast.Doc, "the SPDX line has become the package comment; put an empty line after it"))
			case path.Base(f.path) != docFile:
				problems = append(problems, t.problem(f.ast.Doc, "a package comment outside doc.go"))
			default:
				found = true
			}
		}
		if !found {
			problems = append(problems, Problem{Path: p.dir, Text: "no package comment in doc.go"})
		}
	}
	return problems
}

// checkFiles looks at each file by itself.
func checkFiles(t *tree) []Problem {
	var problems []Problem
	for _, f := range t.files() {
		if f.generated {
			continue
		}
		if !bytes.HasPrefix(f.src, []byte(spdx)) {
			problems = append(problems, Problem{Path: f.path, Line: 1, Text: "the first line is not " + strings.TrimSpace(spdx)})
		}
		if n := bytes.Count(f.src, []byte("\n")); n > mostLines {
			problems = append(problems, Problem{Path: f.path, Text: fmt.Sprintf("%d lines, and %d are the most: is it one idea?", n, mostLines)})
		}
	}
	return problems
}

// checkExported counts what a reader of a package has to take in. The api is
// only remarked upon: a vocabulary is as long as it is, and Kubernetes' tools
// want a version of it in one package.
func checkExported(t *tree) []Problem {
	var problems []Problem
	for _, p := range t.packages {
		var names []string
		for _, f := range p.files {
			if !f.test && !f.generated && f.ast.Name.Name != "main" {
				names = append(names, exported(f.ast)...)
			}
		}
		if n := len(names); n > manyNames {
			problems = append(problems, Problem{
				Path: p.dir, Note: n <= mostNames || within(p.dir, "api"),
				Text: fmt.Sprintf("%d exported names, and %d are many: is it one noun?", n, manyNames),
			})
		}
	}
	return problems
}

// exported are the names that f declares at its top level for others. Methods
// and fields belong to their type.
func exported(f *ast.File) []string {
	var names []string
	for _, decl := range f.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil {
				names = append(names, decl.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, spec.Name.Name)
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return !ast.IsExported(name) })
}

// checkSkips finds tests that may pass without having run. It goes by the names
// that everybody gives to the testing types.
func checkSkips(t *tree) []Problem {
	var problems []Problem
	for _, f := range t.files() {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if ok && slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				problems = append(problems, t.problem(sel, "a test must not skip: what it needs and does not find is a failure"))
			}
			return true
		})
	}
	return problems
}
