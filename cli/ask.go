// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// confirm makes somebody type names again. Without a terminal there is nobody
// to, and that is an error.
func (a *app) confirm(ctx context.Context, names []string, approved bool) error {
	if approved {
		return nil
	}
	if !a.interactive() {
		return usage("nobody is there to confirm this: stdin is not a terminal").hints("give --auto-approve to do it unasked")
	}
	fmt.Fprint(a.stdio.Err, "Please type the name again(separate with white space when more than one): ")
	typed, err := a.readLine(ctx)
	if err != nil {
		return err
	}
	given := strings.Join(strings.Fields(typed), " ")
	if want := strings.Join(names, " "); given != want {
		return usage("typed %q does not match %q", given, want)
	}
	return nil
}

// agree asks a question whose answer is yes or no.
func (a *app) agree(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(a.stdio.Err, question+" (yes/no): ")
	typed, err := a.readLine(ctx)
	if err != nil {
		return false, err
	}
	typed = strings.ToLower(strings.TrimSpace(typed))
	return typed == "y" || typed == "yes", nil
}

// readLine reads a line, or gives up when ctx ends. The reading itself cannot
// be ended, but then the process soon does.
func (a *app) readLine(ctx context.Context) (string, error) {
	type line struct {
		text string
		err  error
	}
	got := make(chan line, 1)
	go func() {
		text, err := a.lines.ReadString('\n')
		if errors.Is(err, io.EOF) && text != "" {
			err = nil
		}
		got <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.stdio.Err)
		return "", context.Cause(ctx)
	case l := <-got:
		if errors.Is(l.err, io.EOF) {
			return "", usage("nothing was typed")
		}
		return l.text, l.err
	}
}

// readPassword reads a line from the terminal without showing it.
func (a *app) readPassword(ctx context.Context) (string, error) {
	f, ok := a.stdio.In.(*os.File)
	if !ok {
		return "", usage("nobody is there to ask for a password: stdin is not a terminal")
	}
	fd := int(f.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	type line struct {
		text []byte
		err  error
	}
	got := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		got <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		// Otherwise the shell would be left without its echo.
		err := term.Restore(fd, state)
		fmt.Fprintln(a.stdio.Err)
		return "", errors.Join(context.Cause(ctx), err)
	case l := <-got:
		fmt.Fprintln(a.stdio.Err)
		if l.err != nil {
			return "", fmt.Errorf("read password: %w", l.err)
		}
		return string(l.text), nil
	}
}
