// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"log/slog"

	"github.com/kbcli/kbcli/runtimes/local"
)

// openLocal opens this machine.
func openLocal(ctx context.Context, a *app, stateDir string, log *slog.Logger) (*local.Runtime, error) {
	return local.Open(ctx, local.Options{
		StateDir: stateDir, Clock: a.clock, Log: log, Version: version, Supervisor: a.env("KBCLI_SUPERVISOR"),
	})
}
