// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"strings"
	"text/template"
)

// The chart's measures, in pixels. A bar as long as the best other's is unit; longer ones
// are cut at longest units, and say so. The figures stand in a column.
const (
	chartWidth = 900
	labelWidth = 190
	unit       = 200
	longest    = 2.4
	figures    = labelWidth + 480 + 8 // behind the longest bar
	barHeight  = 13
	barStep    = 17
	groupSkip  = 34
)

type drawing struct {
	Width, Height, Labels, One, Figures int
	Groups                              []group
	Legend                              int
}

type group struct {
	Title          string
	Y, Top, Bottom int
	Goal           int // where its line is
	Bars           []drawn
}

type drawn struct {
	Tool, Class, Figure string
	X, Y, TextY, Width  int
	Cut                 bool
}

// chart draws kbcli beside the others, one group a work, each bar as a multiple of the best
// other's median. It reads in the light and in the dark, and alone.
func (r *results) chart() ([]byte, error) {
	d := drawing{Width: chartWidth, Labels: labelWidth - 8, One: labelWidth + unit, Figures: figures, Legend: 20}
	y := 40
	for _, s := range r.Tests {
		for _, g := range s.Goals {
			if len(g.Bars) == 0 || g.Theirs == 0 {
				continue
			}
			d.Groups = append(d.Groups, g.draw(&y))
		}
	}
	if len(d.Groups) == 0 {
		return nil, errors.New("the results have nothing to draw")
	}
	d.Height = y
	var out bytes.Buffer
	err := drawingSVG.Execute(&out, d)
	return out.Bytes(), err
}

func (g *goal) draw(y *int) group {
	d := group{Title: g.Work + ", " + g.What, Y: *y + 14, Top: *y + 22, Goal: labelWidth + int(math.Round(g.Bound*unit))}
	at := *y + 24
	for _, b := range g.Bars {
		times := b.Median / g.Theirs
		shown := min(times, longest)
		w := max(1, int(math.Round(shown*unit)))
		class := "other"
		switch {
		case b.Tool == "kbcli":
			class = "kbcli"
		case b.Limit:
			class = "limit"
		}
		d.Bars = append(d.Bars, drawn{
			Tool: b.Tool, Class: class, Figure: fmt.Sprintf("%.2f · %s (%s–%s)", times, inUnit(b.Median, g.Unit), short(b.Least), short(b.Most)),
			X: labelWidth, Y: at, TextY: at + barHeight - 3, Width: w, Cut: times > longest,
		})
		at += barStep
	}
	d.Bottom = at
	*y = at + groupSkip - barStep
	return d
}

func short(f float64) string {
	if f >= 100 {
		return whole(f)
	}
	return fmt.Sprintf("%.3g", f)
}

func escaped(s string) (string, error) {
	var out strings.Builder
	err := xml.EscapeText(&out, []byte(s))
	return out.String(), err
}

var drawingSVG = template.Must(template.New("chart").Funcs(template.FuncMap{"xml": escaped}).Parse(
	`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" role="img" aria-labelledby="title">
<title id="title">kbcli beside the others; the best other is 1, shorter is better</title>
<style>
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .head { font-weight: 600 }
  .note { fill: #59636e }
  .kbcli { fill: #0969da }
  .other { fill: #818b98 }
  .limit { fill: none; stroke: #818b98; stroke-dasharray: 3 2 }
  .one { stroke: #59636e }
  .goal { stroke: #cf222e; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .note { fill: #9198a1 }
    .kbcli { fill: #4493f8 }
    .other { fill: #656c76 }
    .limit { fill: none; stroke: #9198a1 }
    .one { stroke: #9198a1 }
    .goal { stroke: #f85149 }
  }
</style>
<text class="note" x="8" y="{{.Legend}}">Medians as multiples of the best other tool’s (thin line); (least–most) of the runs; red: kbcli’s goal; dashed: limits, not tools</text>
{{- range .Groups}}
<text class="head" x="8" y="{{.Y}}">{{xml .Title}}</text>
{{- range .Bars}}
<text x="{{$.Labels}}" y="{{.TextY}}" text-anchor="end">{{xml .Tool}}</text>
<rect class="{{.Class}}" x="{{.X}}" y="{{.Y}}" width="{{.Width}}" height="13"/>
<text x="{{$.Figures}}" y="{{.TextY}}">{{if .Cut}}→ {{end}}{{xml .Figure}}</text>
{{- end}}
<line class="one" x1="{{$.One}}" y1="{{.Top}}" x2="{{$.One}}" y2="{{.Bottom}}"/>
<line class="goal" x1="{{.Goal}}" y1="{{.Top}}" x2="{{.Goal}}" y2="{{.Bottom}}"/>
{{- end}}
</svg>
`))
