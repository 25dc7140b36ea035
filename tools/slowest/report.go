// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

const most = 10

// event is a line of go test -json; see go doc test2json and go help buildjson.
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64 // seconds
	Output  string
}

type testName struct{ pkg, test string }

type result struct {
	testName
	action  string
	elapsed time.Duration
}

// report gathers the events of one go test.
type report struct {
	out      io.Writer
	pending  map[testName][]string // the output of what has not ended; a package's under an empty test
	open     map[string]bool       // packages that have not ended
	results  []result              // tests, in the order of their ends
	packages int
	failed   bool
}

func newReport(out io.Writer) *report {
	return &report{out: out, pending: make(map[testName][]string), open: make(map[string]bool)}
}

// line takes in one line of input. One that is no event is passed on: the go
// command prints some of its errors plainly.
func (r *report) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		fmt.Fprintf(r.out, "%s\n", strings.TrimRight(string(line), "\n"))
		return
	}
	name := testName{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		io.WriteString(r.out, e.Output)
	case "build-fail":
		r.failed = true
	case "start":
		r.open[e.Package] = true
	case "output":
		if !isProgress(e.Output) {
			r.pending[name] = append(r.pending[name], e.Output)
		}
	case "pass", "fail", "skip":
		if e.Action == "fail" {
			r.failed = true
		}
		if e.Test == "" {
			r.endPackage(e.Package, e.Action)
		} else {
			r.endTest(name, e)
		}
	}
}

// isSummary tells whether text is the line that go test prints for a package.
func isSummary(text string) bool {
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t"} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}

// isProgress tells whether text is one of the lines that only go test -v prints.
func isProgress(text string) bool {
	return strings.HasPrefix(text, "=== ")
}

func (r *report) endTest(name testName, e event) {
	if e.Action == "fail" {
		r.flush(name, func(string) bool { return true })
	}
	delete(r.pending, name)
	r.results = append(r.results, result{name, e.Action, time.Duration(e.Elapsed * float64(time.Second))})
}

func (r *report) endPackage(pkg, action string) {
	r.packages++
	delete(r.open, pkg)
	if action == "fail" {
		r.flushTests(pkg)
	}
	r.flush(testName{pkg, ""}, func(text string) bool { return action == "fail" || isSummary(text) })
	maps.DeleteFunc(r.pending, func(n testName, _ []string) bool { return n.pkg == pkg })
}

// flushTests prints what the tests of pkg said that never ended: one of them
// took the package down.
func (r *report) flushTests(pkg string) {
	var names []testName
	for name := range r.pending {
		if name.pkg == pkg && name.test != "" {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b testName) int { return cmp.Compare(a.test, b.test) })
	for _, name := range names {
		r.flush(name, func(string) bool { return true })
	}
}

func (r *report) flush(name testName, wanted func(string) bool) {
	for _, text := range r.pending[name] {
		if wanted(text) {
			io.WriteString(r.out, text)
		}
	}
	delete(r.pending, name)
}

// end prints what is known at the end and tells whether all is well.
func (r *report) end(strict bool) bool {
	for _, pkg := range slices.Sorted(maps.Keys(r.open)) {
		r.flushTests(pkg)
		r.flush(testName{pkg, ""}, func(string) bool { return true })
		fmt.Fprintf(r.out, "FAIL\t%s [broke off]\n", pkg)
		r.failed = true
	}
	leaves := r.leaves()
	count := make(map[string]int)
	var skipped []result
	for _, l := range leaves {
		count[l.action]++
		if l.action == "skip" {
			skipped = append(skipped, l)
		}
	}
	if len(skipped) > 0 {
		fmt.Fprintf(r.out, "\nskipped:\n")
		for _, s := range skipped {
			fmt.Fprintf(r.out, "           %s %s\n", s.pkg, s.test)
		}
	}
	if len(leaves) > 0 {
		fmt.Fprintf(r.out, "\nslowest:\n")
		slices.SortStableFunc(leaves, func(a, b result) int { return cmp.Compare(b.elapsed, a.elapsed) })
		for _, l := range leaves[:min(most, len(leaves))] {
			fmt.Fprintf(r.out, "%8.2fs  %s %s\n", l.elapsed.Seconds(), l.pkg, l.test)
		}
	}
	fmt.Fprintf(r.out, "\n%d tests in %d packages: %d passed, %d failed, %d skipped\n",
		len(leaves), r.packages, count["pass"], count["fail"], count["skip"])
	switch {
	case r.packages == 0:
		fmt.Fprintln(r.out, "nothing was tested")
		return false
	case strict && len(skipped) > 0:
		fmt.Fprintln(r.out, "a skipped test is a failure where CI is set")
		return false
	}
	return !r.failed
}

// leaves are the tests without subtests: a parent's time is its children's.
func (r *report) leaves() []result {
	parents := make(map[testName]bool)
	for _, res := range r.results {
		for name := res.test; ; {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			name = name[:i]
			parents[testName{res.pkg, name}] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(r.results), func(res result) bool { return parents[res.testName] })
}
