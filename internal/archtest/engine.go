// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"go/ast"
	"path"
	"slices"
	"strings"
)

// banned are the names of the standard library that engine does not use, with
// what it does instead. A name that ends in * stands for all that begin so.
var banned = map[string]map[string]string{
	"os": {
		"Exit": "return an error", "Getenv": fromCaller, "LookupEnv": fromCaller, "Environ": fromCaller, "ExpandEnv": fromCaller,
	},
	"syscall": {"Exit": "return an error", "Getenv": fromCaller, "Environ": fromCaller},
	"fmt":     {"Print": toCaller, "Printf": toCaller, "Println": toCaller},
	"log":     {"Fatal*": "return an error", "Print*": toCaller},
	"time":    {"Now": "take a clock", "Since": "take a clock", "Until": "take a clock"},
}

const (
	fromCaller = "take it from the caller"
	toCaller   = "return it, or take an io.Writer or a *slog.Logger"
)

// strangers are import paths, and all below them, that engine knows nothing of.
var strangers = []string{
	"flag", "github.com/spf13/cobra", "github.com/spf13/pflag",
	"k8s.io", "sigs.k8s.io/controller-runtime", "helm.sh/helm",
}

// clientGo is the client of the Kubernetes API, and what is built upon it.
var clientGo = []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"}

// mayReachKubernetes are the packages and files that know it. All others see a
// store.Store or a runtimes.Runtime.
var mayReachKubernetes = []string{
	"runtimes/store/kube", "runtimes/kubernetes", "runtimes/operator", "cli/runtime_kubernetes.go", "e2e", "bench", "internal/testkube",
}

// checkKubernetes keeps the client of the Kubernetes API in its rooms.
func checkKubernetes(t *tree) []Problem {
	var problems []Problem
	for _, f := range t.files() {
		if within(f.path, "engine") { // checkEngine forbids more
			continue
		}
		if slices.ContainsFunc(mayReachKubernetes, func(room string) bool { return within(f.path, room) }) {
			continue
		}
		for _, spec := range f.ast.Imports {
			for _, c := range clientGo {
				if p := importPath(spec); within(p, c) {
					problems = append(problems, t.problem(spec, "%s is for runtimes/store/kube, runtimes/kubernetes, runtimes/operator and cli/runtime_kubernetes.go", p))
				}
			}
		}
	}
	return problems
}

// checkEngine holds the files of engine that are not tests to what a library
// does.
func checkEngine(t *tree) []Problem {
	var problems []Problem
	for _, p := range t.packages {
		if !within(p.dir, "engine") {
			continue
		}
		for _, f := range p.files {
			if !f.test {
				problems = append(problems, checkEngineFile(t, f)...)
			}
		}
	}
	return problems
}

func checkEngineFile(t *tree, f *file) []Problem {
	var problems []Problem
	imported := make(map[string]map[string]string) // banned names by the package's name in this file
	for _, spec := range f.ast.Imports {
		p := importPath(spec)
		for _, s := range strangers {
			if within(p, s) {
				problems = append(problems, t.problem(spec, "engine must not import %s", p))
			}
		}
		names, ok := banned[p]
		if !ok {
			continue
		}
		local := path.Base(p)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == "." {
			problems = append(problems, t.problem(spec, "engine must not import all names of %s: some of them are not for it", p))
			continue
		}
		imported[local] = names
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			// An identifier with an object is a variable that hides the package.
			x, ok := n.X.(*ast.Ident)
			if !ok || x.Obj != nil {
				return true
			}
			if instead, ok := lookUp(imported[x.Name], n.Sel.Name); ok {
				problems = append(problems, t.problem(n, "engine must not use %s.%s: %s", x.Name, n.Sel.Name, instead))
			}
		case *ast.CallExpr:
			if fun, ok := n.Fun.(*ast.Ident); ok && fun.Obj == nil && (fun.Name == "print" || fun.Name == "println") {
				problems = append(problems, t.problem(n, "engine must not use %s: %s", fun.Name, toCaller))
			}
		}
		return true
	})
	return problems
}

func lookUp(names map[string]string, name string) (instead string, ok bool) {
	if instead, ok := names[name]; ok {
		return instead, true
	}
	for pattern, instead := range names {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(name, prefix) {
			return instead, true
		}
	}
	return "", false
}
