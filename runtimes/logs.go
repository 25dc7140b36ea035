// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"io"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// LogOptions say which lines of a log are wanted.
type LogOptions struct {
	Agent  bool // of the agent, about this cluster; else of PostgreSQL
	Tail   int  // the last lines; negative is all
	Follow bool // go on until ctx ends
}

// LogReader is a Runtime whose servers' logs can be read.
type LogReader interface {
	// Logs writes lines of a log to w.
	Logs(ctx context.Context, c *v1alpha1.Cluster, o LogOptions, w io.Writer) error
}

// LogElsewhereError says that a log is in no file that can be read from here.
type LogElsewhereError struct {
	Whose   string // "cluster my-pg", "the agent"
	Command string // shows it; empty if nobody knows one
}

func (e *LogElsewhereError) Error() string { return "the log of " + e.Whose + " is not in a file" }
