// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kbcli/kbcli/internal/atomicfile"
)

// render does what is asked of results that were kept, if that is what the words say.
func render(words []string) (done bool, err error) {
	if len(words) == 0 {
		return false, nil
	}
	want := map[string]int{"table": 2, "chart": 2, "report": 4}[words[0]]
	if want == 0 {
		return false, nil
	}
	if len(words) != want {
		return true, errors.New("table FILE, chart FILE, or report FILE README SVG")
	}
	r, err := readResults(words[1])
	if err != nil {
		return true, err
	}
	switch words[0] {
	case "table":
		fmt.Print(r.table())
		return true, nil
	case "chart":
		svg, err := r.chart()
		if err == nil {
			_, err = os.Stdout.Write(svg)
		}
		return true, err
	}
	return true, r.report(words[2], words[3])
}

// table is the README's: what was promised, what came, and the conditions.
func (r *results) table() string {
	var out strings.Builder
	fmt.Fprintln(&out, r.conditions())
	fmt.Fprint(&out, "\n| work | kbcli | best other | ratio | goal | held |\n|---|---|---|---|---|---|\n")
	for _, s := range r.Tests {
		for _, g := range s.Goals {
			if !g.Aside {
				fmt.Fprintln(&out, g.row())
			}
		}
	}
	return out.String()
}

func (g *goal) row() string {
	other, ratio := "–", "–"
	if g.Other != "" {
		other = g.Other + " " + inUnit(g.Theirs, g.Unit)
		if g.Theirs != 0 {
			ratio = fmt.Sprintf("%.2f", g.Kbcli/g.Theirs)
			if g.Ratio && g.Kbcli/g.Theirs < 0.1 {
				ratio = fmt.Sprintf("%.4f", g.Kbcli/g.Theirs)
			}
		}
	}
	bound := map[bool]string{true: "≥ ", false: "≤ "}[g.AtLeast] + fmt.Sprintf("%g", g.Bound)
	if !g.Ratio {
		bound = strings.TrimSpace(bound + " " + g.Unit)
	}
	held := "yes"
	if !g.Held {
		held = "**no**"
	}
	work := strings.ReplaceAll(g.Work+": "+g.What, "|", `\|`)
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s |", work, inUnit(g.Kbcli, g.Unit), strings.ReplaceAll(other, "|", `\|`), ratio, bound, held)
}

// inUnit says a figure for people.
func inUnit(f float64, unit string) string {
	switch unit {
	case "bytes":
		return size(f)
	case "s":
		return fmt.Sprintf("%.2f s", f)
	case "tps", "rows", "ms":
		return fmt.Sprintf("%.0f %s", f, unit)
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", f), "0"), ".")
}

// conditions says when and on what it was measured; each once.
func (r *results) conditions() string {
	var said []string
	seen := map[string]bool{}
	add := func(s string) {
		if !seen[s] {
			seen[s] = true
			said = append(said, s)
		}
	}
	var from, to time.Time
	for _, s := range r.Tests {
		if from.IsZero() || s.When.Before(from) {
			from = s.When
		}
		if s.When.After(to) {
			to = s.When
		}
		add(fmt.Sprintf("medians of %d interleaved runs", s.Runs))
		add(fmt.Sprintf("%d cores %s", s.Cores, s.Arch))
		if s.Quick {
			add("**small data: a look, and no claim**")
		}
		for _, v := range s.Versions {
			add(strings.Split(v, ", ")[0])
		}
	}
	days := from.Format(time.DateOnly)
	if end := to.Format(time.DateOnly); end != days {
		days += " to " + end
	}
	return fmt.Sprintf("Measured %s: %s.", days, strings.Join(said, "; "))
}

const beginMark, endMark = "<!-- bench:begin -->", "<!-- bench:end -->"

// report writes the chart, and the table into the README, between its marks.
func (r *results) report(readme, svg string) error {
	drawn, err := r.chart()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	link, err := filepath.Rel(filepath.Dir(readme), svg)
	if err != nil {
		return err
	}
	between := fmt.Sprintf("![kbcli beside the others, one group a work; shorter is better](%s)\n\n%s", filepath.ToSlash(link), r.table())
	changed, err := splice(text, between)
	if err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	if err := os.MkdirAll(filepath.Dir(svg), 0o755); err != nil {
		return err
	}
	return errors.Join(atomicfile.Write(svg, drawn, 0o644), atomicfile.Write(readme, changed, 0o644))
}

// splice puts a text between the marks.
func splice(text []byte, between string) ([]byte, error) {
	head, rest, ok := bytes.Cut(text, []byte(beginMark))
	_, tail, also := bytes.Cut(rest, []byte(endMark))
	if !ok || !also {
		return nil, fmt.Errorf("there is no %s with a %s behind it", beginMark, endMark)
	}
	return fmt.Appendf(nil, "%s%s\n%s%s%s", head, beginMark, between, endMark, tail), nil
}
