// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// logEvery is how often a line is logged where there is no terminal.
const logEvery = 10 * time.Second

// progress is one line that changes on a terminal, and a line now and then elsewhere.
type progress struct {
	w        io.Writer
	clock    func() time.Time
	terminal bool
	shown    string
	next     time.Time
}

func (a *app) progress() *progress {
	return &progress{w: a.stdio.Err, clock: a.clock, terminal: isTerminal(a.stdio.Err), next: a.clock().Add(logEvery)}
}

func (p *progress) show(line string) {
	switch {
	case line == "":
	case p.terminal && line != p.shown:
		fmt.Fprintf(p.w, "\r\033[K%s", p.fit(line))
		p.shown = line
	case !p.terminal && !p.clock().Before(p.next):
		fmt.Fprintln(p.w, line)
		p.next = p.clock().Add(logEvery)
	}
}

// fit cuts a line to the width of the terminal: one that wraps could not be taken back.
func (p *progress) fit(line string) string {
	f, ok := p.w.(*os.File)
	if !ok {
		return line
	}
	width, _, err := term.GetSize(int(f.Fd()))
	runes := []rune(line)
	if err != nil || width < 2 || len(runes) < width {
		return line
	}
	return string(runes[:width-2]) + "…"
}

// end leaves the terminal as if nothing had been shown.
func (p *progress) end() {
	if p.shown != "" {
		fmt.Fprint(p.w, "\r\033[K")
	}
}
