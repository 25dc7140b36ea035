// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"log/slog"
	"time"

	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/local"
)

// openLocal opens this machine.
func openLocal(ctx context.Context, stateDir string, clock func() time.Time, log *slog.Logger) (runtimes.Runtime, error) {
	return local.Open(ctx, local.Options{StateDir: stateDir, Clock: clock, Log: log})
}
