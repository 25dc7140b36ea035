// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"log/slog"
	"syscall"

	"github.com/kbcli/kbcli/runtimes/local"
)

// openLocal opens this machine.
func openLocal(ctx context.Context, a *app, stateDir string, log *slog.Logger) (*local.Runtime, error) {
	r, err := local.Open(ctx, local.Options{
		StateDir: stateDir, Clock: a.clock, Log: log, Version: version, Supervisor: a.env("KBCLI_SUPERVISOR"),
	})
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		p := failed("%v", err).hints("name a directory that can be written with --state-dir, or in KBCLI_STATE_DIR")
		p.cause = err
		return nil, p
	}
	return r, err
}
