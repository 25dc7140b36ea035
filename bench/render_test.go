// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

const fixture = "testdata/results.json"

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestTable(t *testing.T) {
	r, err := readResults(fixture)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/table.md", []byte(r.table()))
}

func TestChart(t *testing.T) {
	r, err := readResults(fixture)
	if err != nil {
		t.Fatal(err)
	}
	// a name that XML would take for its own
	r.Tests[0].Goals[0].Bars[1].Tool = "pg<back>&rest"
	svg, err := r.chart()
	if err != nil {
		t.Fatal(err)
	}
	bars := map[string]int{} // of each class
	longest := ""
	dec := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the chart is not well formed: %v\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			at := map[string]string{}
			for _, a := range token.Attr {
				at[a.Name.Local] = a.Value
			}
			if token.Name.Local == "rect" {
				bars[at["class"]+" "+at["width"]]++
			}
		case xml.CharData:
			if strings.HasPrefix(string(token), "→") {
				longest = string(token)
			}
		}
	}
	// kbcli takes half of the best other, which is one unit; Barman's is cut
	if diff := cmp.Diff(map[string]int{"kbcli 100": 1, "other 200": 1, "other 480": 1, "limit 67": 1}, bars); diff != "" {
		t.Errorf("bars: %s", diff)
	}
	if want := "→ 5.00 · 30.00 s (29–31)"; longest != want {
		t.Errorf("the bar that is cut says %q, not %q", longest, want)
	}
	if _, err := (&results{}).chart(); err == nil {
		t.Error("a chart of nothing was drawn")
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	readme, svg := filepath.Join(dir, "README.md"), filepath.Join(dir, "docs", "img", "bench.svg")
	if err := os.WriteFile(readme, []byte("before\n"+beginMark+"\nold\n"+endMark+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := readResults(fixture)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again it is the same
		if done, err := render([]string{"report", fixture, readme, svg}); !done || err != nil {
			t.Fatal(done, err)
		}
		got, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		want := "before\n" + beginMark + "\n![kbcli beside the others, one group a work; shorter is better](docs/img/bench.svg)\n\n" + r.table() + endMark + "\nafter\n"
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := os.Stat(svg); err != nil {
		t.Error(err)
	}
	if _, err := splice([]byte("no marks"), "x"); err == nil {
		t.Error("a README without marks was taken")
	}
	if done, _ := render([]string{"full"}); done {
		t.Error("a test was taken for a report")
	}
}

// What one program measured stays when another measures something else.
func TestKeep(t *testing.T) {
	b := &bench{out: io.Discard, json: filepath.Join(t.TempDir(), "r.json"), runs: 2}
	for _, x := range []struct {
		name string
		wall float64
	}{{"incremental", 9}, {"full pgbench", 4}, {"incremental", 1}} {
		if err := b.begin(x.name, "of %s", x.name); err != nil {
			t.Fatal(err)
		}
		s := &samples{}
		s.put("kbcli", usage{Wall: x.wall})
		s.put("kbcli", usage{Wall: x.wall + 2})
		s.put("pgbackrest", usage{Wall: 10})
		s.put("barman", usage{Wall: 2})
		s.put("cp -a", usage{Wall: 1})
		b.table(s, column{"wall s", wall, two})
		b.beside("work", "wall", "s", s, wall, 0.5)
		if err := b.keep(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := readResults(b.json)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Name   string
		Figure float64
		Held   bool
	}
	var got []row
	for _, s := range r.Tests {
		if time.Since(s.When) > time.Hour || len(s.Medians) != 4 || s.Runs != 2 {
			t.Errorf("%s: %+v", s.Name, s)
		}
		for _, g := range s.Goals {
			if g.Other != "pgbackrest" { // neither a limit nor a tool that does less
				t.Errorf("%s: beside %s", s.Name, g.Other)
			}
			got = append(got, row{s.Name, g.Figure, g.Held})
		}
	}
	if diff := cmp.Diff([]row{{"full pgbench", 0.5, true}, {"incremental", 0.2, true}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestJudge(t *testing.T) {
	var out bytes.Buffer
	b := &bench{out: &out, now: &section{}}
	b.judge(goal{Work: "a", What: "wall", Unit: "s", Kbcli: 8, Other: "x", Theirs: 10, Ratio: true, Bound: 0.7})
	b.judge(goal{Work: "b", What: "tps", Kbcli: 97, Other: "x", Theirs: 100, Ratio: true, Bound: 0.97, AtLeast: true})
	b.judge(goal{Work: "c", What: "rows lost", Unit: "rows", Bound: 0})
	b.judge(goal{Work: "d", What: "wall", Kbcli: 1, Other: "nobody", Ratio: true, Bound: 1})
	want := `- a: kbcli / x, wall: **0.800** (at most 0.7: NOT held)
- b: kbcli / x, tps: **0.970** (at least 0.97: held)
- c: kbcli, rows lost: **0.000** rows (at most 0: held)
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if len(b.now.Goals) != 3 {
		t.Errorf("%d goals were kept", len(b.now.Goals))
	}
}

func TestMissing(t *testing.T) {
	began := time.Unix(1000, 0)
	var acked []time.Time
	for i := range 10 {
		acked = append(acked, began.Add(time.Duration(i)*time.Second))
	}
	for restored, want := range map[string]usage{
		"10|10\n": {}, "11|11": {}, // the eleventh was on its way
		"7|7": {LostRows: 3, LostTime: 3},
	} {
		got, err := missing(acked, restored)
		if err != nil {
			t.Errorf("%q: %v", restored, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", restored, diff)
		}
	}
	for _, restored := range []string{"6|7", "0|0", "", "x"} {
		if _, err := missing(acked, restored); err == nil {
			t.Errorf("%q was judged", restored)
		}
	}
}
