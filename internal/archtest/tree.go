// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// tree is the source of a module.
type tree struct {
	root     string // its directory
	module   string // its path in go.mod
	fset     *token.FileSet
	packages []*pkg  // by directory
	nested   []*file // the files of modules inside, such as tools
}

// pkg is the Go files of one directory, tests included.
type pkg struct {
	dir   string // relative to the root, with slashes
	files []*file
}

type file struct {
	path      string // relative to the root, with slashes
	src       []byte
	ast       *ast.File
	test      bool
	generated bool
}

// load reads the Go files under root, which holds a go.mod. It passes over what
// the go command passes over: testdata, vendor, and names that begin with a dot
// or an underscore.
func load(root string) (*tree, error) {
	goMod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	t := &tree{root: root, module: modulePath(goMod), fset: token.NewFileSet()}
	if t.module == "" {
		return nil, fmt.Errorf("%s: no module line", filepath.Join(root, "go.mod"))
	}
	packages := make(map[string]*pkg)
	var nestedRoots []string
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			base := d.Name()
			switch {
			case rel == ".":
				return nil
			case base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_':
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				nestedRoots = append(nestedRoots, rel)
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || d.Name()[0] == '.' || d.Name()[0] == '_' {
			return nil
		}
		f, err := t.parse(name, rel)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(nestedRoots, func(r string) bool { return within(rel, r) }) {
			t.nested = append(t.nested, f)
			return nil
		}
		dir := path.Dir(rel)
		if packages[dir] == nil {
			packages[dir] = &pkg{dir: dir}
			t.packages = append(t.packages, packages[dir])
		}
		packages[dir].files = append(packages[dir].files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (t *tree) parse(name, rel string) (*file, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(t.fset, rel, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	return &file{
		path: rel, src: src, ast: parsed,
		test: strings.HasSuffix(rel, "_test.go"), generated: ast.IsGenerated(parsed),
	}, nil
}

// files are all of them, nested modules included.
func (t *tree) files() []*file {
	var all []*file
	for _, p := range t.packages {
		all = append(all, p.files...)
	}
	return append(all, t.nested...)
}

// own is the directory of an import path of this module, relative to the root.
func (t *tree) own(importPath string) (dir string, ok bool) {
	if importPath == t.module {
		return ".", true
	}
	return strings.CutPrefix(importPath, t.module+"/")
}

func (t *tree) problem(n ast.Node, format string, args ...any) Problem {
	at := t.fset.Position(n.Pos())
	return Problem{Path: at.Filename, Line: at.Line, Text: fmt.Sprintf(format, args...)}
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value
	}
	return p
}

// within tells whether name is dir or below it.
func within(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, dir+"/")
}

func modulePath(goMod []byte) string {
	for line := range bytes.Lines(goMod) {
		if fields := strings.Fields(string(line)); len(fields) == 2 && fields[0] == "module" {
			return fields[1]
		}
	}
	return ""
}
