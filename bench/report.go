// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// sample is the measurements of one thing: a row of a table.
type sample struct {
	name string
	of   []usage
}

// samples keeps them in the order in which they first came.
type samples struct{ rows []*sample }

func (s *samples) add(name string, u usage) {
	s.put(name, u)
	say("  %s: %.2f s, %.2f s CPU, %s read, %s written, %s stored", name, u.Wall, u.CPU, size(u.Read), size(u.Written), size(u.Stored))
}

func (s *samples) put(name string, u usage) {
	i := slices.IndexFunc(s.rows, func(r *sample) bool { return r.name == name })
	if i < 0 {
		i = len(s.rows)
		s.rows = append(s.rows, &sample{name: name})
	}
	s.rows[i].of = append(s.rows[i].of, u)
}

// get gives the row of a name, or nil.
func (s *samples) get(name string) *sample {
	i := slices.IndexFunc(s.rows, func(r *sample) bool { return r.name == name })
	if i < 0 {
		return nil
	}
	return s.rows[i]
}

// median of what by gives; 0 of none.
func (s *sample) median(by func(usage) float64) float64 {
	if s == nil || len(s.of) == 0 {
		return 0
	}
	v := s.values(by)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func (s *sample) values(by func(usage) float64) []float64 {
	var v []float64
	for _, u := range s.of {
		v = append(v, by(u))
	}
	slices.Sort(v)
	return v
}

// spread is the median, with the least and the most where they differ from it.
func (s *sample) spread(by func(usage) float64) string { return s.spreadAs(by, two) }

func (s *sample) spreadAs(by func(usage) float64, as func(float64) string) string {
	v := s.values(by)
	m, least, most := as(s.median(by)), as(v[0]), as(v[len(v)-1])
	if least == m && most == m {
		return m
	}
	return fmt.Sprintf("%s (%s–%s)", m, least, most)
}

func two(f float64) string { return fmt.Sprintf("%.2f", f) }

func three(f float64) string { return fmt.Sprintf("%.3f", f) }

func whole(f float64) string { return fmt.Sprintf("%.0f", f) }

func wall(u usage) float64      { return u.Wall }
func serving(u usage) float64   { return u.Serving }
func cpu(u usage) float64       { return u.CPU }
func serverCPU(u usage) float64 { return u.Server }
func read(u usage) float64      { return float64(u.Read) }
func written(u usage) float64   { return float64(u.Written) }
func peak(u usage) float64      { return float64(u.Peak) }
func stored(u usage) float64    { return float64(u.Stored) }
func objects(u usage) float64   { return float64(u.Objects) }

// size in words of a million bytes.
func size[T int64 | float64](n T) string {
	switch m := float64(n) / 1e6; {
	case m >= 100:
		return fmt.Sprintf("%.0f MB", m)
	case m >= 1:
		return fmt.Sprintf("%.1f MB", m)
	default:
		return fmt.Sprintf("%.2f MB", m)
	}
}

// column is a figure of all rows.
type column struct {
	name string
	by   func(usage) float64
	as   func(float64) string
}

var (
	backupColumns = []column{
		{"wall s", wall, two},
		{"CPU s", cpu, two},
		{"server's CPU s", serverCPU, two},
		{"read", read, size[float64]},
		{"written", written, size[float64]},
		{"stored", stored, size[float64]},
		{"objects", objects, whole},
		{"peak memory", peak, size[float64]},
	}
	restoreColumns = []column{
		{"files there, s", wall, two},
		{"serving, s", serving, two},
		{"CPU s", cpu, two},
		{"read", read, size[float64]},
		{"written", written, size[float64]},
		{"peak memory", peak, size[float64]},
	}
)

// table prints rows, each figure with its least and its most, and keeps them.
func (b *bench) table(s *samples, columns ...column) {
	head, line := "| |", "|---|"
	for _, c := range columns {
		head += " " + c.name + " |"
		line += "---|"
	}
	b.print("%s\n%s", head, line)
	for _, r := range s.rows {
		cells := "| " + r.name
		if n := len(r.of); n != b.runs {
			cells += fmt.Sprintf(" (%d runs)", n)
		}
		for _, c := range columns {
			cells += " | " + r.spreadAs(c.by, c.as)
			b.note(r, c.name, c.by)
		}
		b.print("%s |", cells)
	}
	b.print("")
}

// ratio prints one of two medians, which is not judged.
func (b *bench) ratio(what string, x, y float64) {
	if y != 0 {
		b.print("- %s: **%.3f**", what, x/y)
	}
}

// of keeps the rows whose name ends so, named without that end.
func (s *samples) of(end string) *samples {
	out := &samples{}
	for _, r := range s.rows {
		if name, ok := strings.CutSuffix(r.name, end); ok {
			out.rows = append(out.rows, &sample{name, r.of})
		}
	}
	return out
}

// best is the least median among the other tools.
func (s *samples) best(by func(usage) float64, without ...string) (name string, least float64) {
	for _, r := range s.rows {
		if m := r.median(by); !slices.Contains(without, r.name) && (name == "" || m < least) {
			name, least = r.name, m
		}
	}
	return name, least
}

func (b *bench) print(format string, args ...any) { fmt.Fprintf(b.out, format+"\n", args...) }

// heading says what was run, where and when.
func (b *bench) heading() error {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	if err := b.look(); err != nil {
		return err
	}
	b.print("\n# %s", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	b.print("\n`go run ./bench %s`\n", strings.Join(arguments(os.Args[1:]), " "))
	b.print("%d cores %s, load before it %s; medians of %d runs, interleaved, with the least and the most.", runtime.NumCPU(), runtime.GOARCH,
		strings.Join(strings.Fields(string(load))[:3], " "), b.runs)
	for _, v := range b.versions {
		b.print("- %s", v)
	}
	b.print("")
	return nil
}

// settings prints how each tool was set.
func (b *bench) settings(tools []tool) {
	for _, t := range tools {
		b.print("- %s: %s", t.name(), t.settings())
	}
	b.print("")
}

// arguments are those of the command, without the ones that name a place on this machine.
func arguments(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		switch name, _, whole := strings.Cut(strings.TrimLeft(args[i], "-"), "="); name {
		case "work", "out", "json", "kbcli", "pgbin", "user":
			if !whole {
				i++
			}
		default:
			out = append(out, args[i])
		}
	}
	return out
}
