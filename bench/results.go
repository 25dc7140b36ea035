// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/kbcli/kbcli/internal/atomicfile"
)

// results is what -json keeps: the last run of each test, in the order of sections. A
// later run of a test takes the place of the earlier one, and leaves the others.
type results struct {
	Tests []section `json:"tests"`
}

// section is one test, or one data set of it.
type section struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"`
	When     time.Time `json:"when"`
	Runs     int       `json:"runs"`
	Quick    bool      `json:"quick"` // small data: of no meaning beside a bound
	Cores    int       `json:"cores"`
	Arch     string    `json:"arch"`
	Load     string    `json:"load"` // of the machine as it began: 1, 5, 15 minutes
	Versions []string  `json:"versions"`
	Goals    []goal    `json:"goals"`
	Medians  []median  `json:"medians"`
}

// goal is a figure that is judged: kbcli's median beside another's, or alone.
type goal struct {
	Work   string  `json:"work"`
	What   string  `json:"what"` // of it was measured
	Unit   string  `json:"unit"`
	Kbcli  float64 `json:"kbcli"`
	Other  string  `json:"other,omitempty"`
	Theirs float64 `json:"theirs,omitempty"`
	// Figure is what is judged: Kbcli/Theirs if Ratio, else Kbcli.
	Figure  float64 `json:"figure"`
	Ratio   bool    `json:"ratio"`
	Bound   float64 `json:"bound"`
	AtLeast bool    `json:"atLeast,omitempty"` // else at most
	Held    bool    `json:"held"`
	Aside   bool    `json:"aside,omitempty"` // in the report alone, not in the table of the README
	Bars    []bar   `json:"bars,omitempty"`  // what the chart shows; of these less is better
}

// bar is one tool's part in a goal.
type bar struct {
	Tool   string  `json:"tool"`
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
	Limit  bool    `json:"limit,omitempty"` // what nothing can beat by much, and no tool
}

// median is one figure of a row of a table.
type median struct {
	Row    string  `json:"row"`
	What   string  `json:"what"`
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
	Runs   int     `json:"runs"`
}

// sections is the order in which they are told.
var sections = []string{
	"full pgbench", "full mixed", "full tables", "incremental", "chain contiguous", "chain scattered",
	"archive", "pitr", "rpo", "s3", "delta",
}

// begin is the heading of what follows.
func (b *bench) begin(name, format string, args ...any) error {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	b.now = &section{
		Name: name, Title: fmt.Sprintf(format, args...), When: time.Now().UTC().Truncate(time.Second), Runs: b.runs, Quick: b.quick,
		Cores: runtime.NumCPU(), Arch: runtime.GOARCH, Load: strings.Join(strings.Fields(string(load))[:3], " "), Versions: b.versions,
	}
	b.print("## %s\n", b.now.Title)
	return nil
}

// keep keeps what has been measured since begin.
func (b *bench) keep() error {
	b.print("")
	if b.json == "" {
		return nil
	}
	r, err := readResults(b.json)
	if errors.Is(err, fs.ErrNotExist) {
		r = &results{}
	} else if err != nil {
		return err
	}
	r.put(*b.now)
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(b.json, append(text, '\n'), 0o644)
}

func (r *results) put(s section) {
	r.Tests = slices.DeleteFunc(r.Tests, func(old section) bool { return old.Name == s.Name })
	r.Tests = append(r.Tests, s)
	slices.SortStableFunc(r.Tests, func(a, b section) int {
		return cmp.Compare(slices.Index(sections, a.Name), slices.Index(sections, b.Name))
	})
}

func readResults(path string) (*results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read results %s: %w", path, err)
	}
	return r, nil
}

// judge prints a goal and keeps it; of a tool that took no part there is none.
func (b *bench) judge(g goal) {
	g.Figure = g.Kbcli
	against := ""
	if g.Other != "" {
		against = " / " + g.Other
	}
	if g.Ratio {
		if g.Theirs == 0 {
			return
		}
		g.Figure = g.Kbcli / g.Theirs
	}
	side := "at most"
	g.Held = g.Figure <= g.Bound
	if g.AtLeast {
		side, g.Held = "at least", g.Figure >= g.Bound
	}
	unit := ""
	if !g.Ratio && g.Unit != "" {
		unit = " " + g.Unit
	}
	b.print("- %s: kbcli%s, %s: **%.3f**%s (%s %g: %s)", g.Work, against, g.What, g.Figure, unit, side, g.Bound, verdict(g.Held))
	b.now.Goals = append(b.now.Goals, g)
}

func verdict(held bool) string {
	if held {
		return "held"
	}
	return "NOT held"
}

// limits are no tools: to copy bytes, to compress them, to have everything there already.
var limits = []string{"cp -a", "tar | zstd", "cp", "in-pg_wal", "none"}

// weaker are tools that do less: Barman 3.4 stores what it takes as it is, where all
// others compress as zstd -1 does. They are no measure of who does.
var weaker = []string{"barman"}

// beside judges kbcli's median by that of the best other tool, and tells the ones that
// are no such measure on lines of their own.
func (b *bench) beside(work, what, unit string, s *samples, by func(usage) float64, most float64) {
	ours := s.get("kbcli")
	if ours == nil {
		return
	}
	name, least := s.best(by, slices.Concat([]string{"kbcli"}, limits, weaker)...)
	if name != "" {
		b.judge(goal{Work: work, What: what, Unit: unit, Kbcli: ours.median(by), Other: name, Theirs: least, Ratio: true, Bound: most, Bars: s.bars(by)})
	}
	for _, n := range weaker {
		b.ratio(work+": kbcli / "+n+", which does not compress, "+what, ours.median(by), s.get(n).median(by))
	}
}

// limit judges kbcli's median by that of a limit.
func (b *bench) limit(work, what, unit string, ours, limit *sample, by func(usage) float64, most float64) {
	if ours != nil && limit != nil {
		b.judge(goal{Work: work, What: what, Unit: unit, Kbcli: ours.median(by), Other: limit.name, Theirs: limit.median(by), Ratio: true, Bound: most})
	}
}

// aside judges a ratio that the table of the README does not need.
func (b *bench) aside(work, what string, x, y, most float64) {
	b.judge(goal{Work: work, What: what, Kbcli: x, Theirs: y, Ratio: true, Bound: most, Aside: true})
}

// bars are all rows, for the chart.
func (s *samples) bars(by func(usage) float64) []bar {
	var out []bar
	for _, r := range s.rows {
		v := r.values(by)
		out = append(out, bar{Tool: r.name, Median: r.median(by), Least: v[0], Most: v[len(v)-1], Limit: slices.Contains(limits, r.name)})
	}
	return out
}

// note keeps a figure of a row for -json.
func (b *bench) note(row *sample, what string, by func(usage) float64) {
	v := row.values(by)
	b.now.Medians = append(b.now.Medians, median{Row: row.name, What: what, Median: row.median(by), Least: v[0], Most: v[len(v)-1], Runs: len(v)})
}

// look asks all programs for their versions.
func (b *bench) look() error {
	for _, v := range [][]string{{b.kbcli, "version"}, {b.bin + "/postgres", "--version"}, {"pgbackrest", "version"}, {"barman", "--version"}} {
		out, err := exec.Command(v[0], v[1:]...).Output()
		if err != nil {
			return fmt.Errorf("%s: %w; bench/install installs the tools", v[0], err)
		}
		b.versions = append(b.versions, strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", ", "))
	}
	return nil
}
