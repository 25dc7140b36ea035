// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// box is a table with rules of +-|, for the verbs of accounts.
type box struct {
	header []string
	rows   [][]string
}

// result is the box of a deed that was done.
func result(message string) *box {
	return &box{header: []string{"RESULT", "MESSAGE"}, rows: [][]string{{"Success", message}}}
}

func (b *box) add(cells ...string) { b.rows = append(b.rows, cells) }

func (b *box) write(w io.Writer) {
	widths := make([]int, len(b.header))
	for _, r := range append([][]string{b.header}, b.rows...) {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	rule := "+"
	for _, n := range widths {
		rule += strings.Repeat("-", n+2) + "+"
	}
	line := func(r []string) {
		s := "|"
		for i, cell := range r {
			s += " " + cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)) + " |"
		}
		fmt.Fprintln(w, s)
	}
	fmt.Fprintln(w, rule)
	line(b.header)
	fmt.Fprintln(w, rule)
	for _, r := range b.rows {
		line(r)
	}
	fmt.Fprintln(w, rule)
}
