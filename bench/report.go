// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
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
	i := slices.IndexFunc(s.rows, func(r *sample) bool { return r.name == name })
	if i < 0 {
		i = len(s.rows)
		s.rows = append(s.rows, &sample{name: name})
	}
	s.rows[i].of = append(s.rows[i].of, u)
	say("  %s: %.2f s, %.2f s CPU, %s read, %s written, %s stored", name, u.Wall, u.CPU, size(u.Read), size(u.Written), size(u.Stored))
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

func (s *sample) spread(by func(usage) float64) string {
	v := s.values(by)
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.median(by), v[0], v[len(v)-1])
}

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

// table prints rows with backup columns.
func (b *bench) table(s *samples, restores bool) {
	head := "| | wall s (least–most) | CPU s | server's CPU s | read | written | stored | objects | peak memory |"
	line := "|---|---|---|---|---|---|---|---|---|"
	if restores {
		head, line = "| | files there, s (least–most) | serving, s | CPU s | read | written | peak memory |", "|---|---|---|---|---|---|---|"
	}
	b.print("%s\n%s", head, line)
	for _, r := range s.rows {
		if restores {
			b.print("| %s | %s | %s | %.2f | %s | %s | %s |", r.name, r.spread(wall), r.spread(serving), r.median(cpu),
				size(r.median(read)), size(r.median(written)), size(r.median(peak)))
			continue
		}
		b.print("| %s | %s | %.2f | %.2f | %s | %s | %s | %.0f | %s |", r.name, r.spread(wall), r.median(cpu), r.median(serverCPU),
			size(r.median(read)), size(r.median(written)), size(r.median(stored)), r.median(objects), size(r.median(peak)))
	}
	b.print("")
}

// ratio prints one of two medians, and what it should be.
func (b *bench) ratio(what string, x, y, most float64) {
	if y == 0 {
		return
	}
	verdict := ""
	if most > 0 {
		verdict = fmt.Sprintf(" (at most %g: %s)", most, map[bool]string{true: "held", false: "NOT held"}[x/y <= most])
	}
	b.print("- %s: **%.3f**%s", what, x/y, verdict)
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
	b.print("\n# %s", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	b.print("\n`go run ./bench %s`\n", strings.Join(arguments(os.Args[1:]), " "))
	b.print("%d cores %s, load before it %s; medians of %d runs, interleaved, with the least and the most.", runtime.NumCPU(), runtime.GOARCH,
		strings.Join(strings.Fields(string(load))[:3], " "), b.runs)
	for _, v := range [][]string{{b.kbcli, "version"}, {b.bin + "/postgres", "--version"}, {"pgbackrest", "version"}, {"barman", "--version"}} {
		out, err := exec.Command(v[0], v[1:]...).Output()
		if err != nil {
			return fmt.Errorf("%s: %w; bench/install installs the tools", v[0], err)
		}
		b.print("- %s", strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", ", "))
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
		case "work", "out", "kbcli", "pgbin", "user":
			if !whole {
				i++
			}
		default:
			out = append(out, args[i])
		}
	}
	return out
}
