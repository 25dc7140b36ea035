// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/internal/atomicfile"
)

// StopAgent ends the agent in order and waits until it has; its servers go on. Until
// something needs it, no agent is started here: not by verbs that only look.
// It tells whether one ran.
func (r *Runtime) StopAgent(ctx context.Context) (bool, error) {
	s, err := r.Agent()
	if err != nil || s == nil {
		return false, err
	}
	if err := atomicfile.Write(r.agentStopped(), nil, 0o644); err != nil {
		return false, fmt.Errorf("stop the agent: %w", err)
	}
	return true, r.endAgent(ctx, s)
}

// RestartAgent ends the agent in order, if one runs, and starts one.
func (r *Runtime) RestartAgent(ctx context.Context) error {
	s, err := r.Agent()
	if err != nil {
		return err
	}
	if s != nil {
		if err := r.endAgent(ctx, s); err != nil {
			return err
		}
	}
	return r.Ready(ctx)
}

// endAgent ends the agent that s is about.
func (r *Runtime) endAgent(ctx context.Context, s *AgentState) error {
	if s.Unit != "" {
		// systemd would not know that this end is meant
		if err := systemctl(ctx, s.User, "stop", s.Unit); err != nil {
			return fmt.Errorf("stop the agent: %w", err)
		}
	} else if err := syscall.Kill(s.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop the agent, process %d: %w", s.PID, err)
	}
	for {
		held, err := lockHeld(r.lock())
		if err != nil || !held {
			return err
		}
		if now, err := readAgentState(r.layout); err == nil && now.PID != s.PID {
			return nil // this one is gone, and somebody started another
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
