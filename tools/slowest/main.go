// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	ok, err := run(os.Stdin, os.Stdout, os.Getenv("CI") != "")
	if err != nil {
		fmt.Fprintln(os.Stderr, "slowest:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run prints the events of in to out and tells whether all is well. With strict,
// a skipped test is not.
func run(in io.Reader, out io.Writer, strict bool) (ok bool, err error) {
	buffered := bufio.NewWriter(out)
	r := newReport(buffered)
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
			// Whoever waits for the tests wants to see each as it ends.
			if err := buffered.Flush(); err != nil {
				return false, err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, err
		}
	}
	ok = r.end(strict)
	return ok, buffered.Flush()
}
