// SPDX-License-Identifier: Apache-2.0

package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kbcli/kbcli/internal/atomicfile"
)

// AgentState is what an agent says of itself, in agent.json.
type AgentState struct {
	PID       int       `json:"pid"`
	Version   string    `json:"version"` // empty for an agent that did not say
	Program   string    `json:"program"`
	Started   time.Time `json:"started"`        // this version of it; an exec in place begins anew
	StartedBy string    `json:"startedBy"`      // "systemd", "process" (a verb started it) or "hand"
	Unit      string    `json:"unit,omitempty"` // of systemd
	User      bool      `json:"user,omitempty"` // the unit is the user's
	StateDir  string    `json:"stateDirectory"`
}

// Agent is what the agent of this state directory says of itself, and nil if none runs.
func (r *Runtime) Agent() (*AgentState, error) {
	running, err := r.agentRuns()
	if err != nil || !running {
		return nil, err
	}
	return readAgentState(r.layout)
}

// AgentOf is what the agent of a state directory says of itself, and nil if none runs
// there or it is no state directory. Nothing is made.
func AgentOf(stateDir string) (*AgentState, error) {
	dir, err := filepath.EvalSymlinks(stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return (&Runtime{layout: layout{dir}}).Agent()
}

// readAgentState reads what the holder of the lock wrote.
func readAgentState(l layout) (*AgentState, error) {
	b, err := os.ReadFile(l.agentState())
	if err == nil {
		s := &AgentState{}
		if err := json.Unmarshal(b, s); err != nil {
			return nil, fmt.Errorf("read %s: %w", l.agentState(), err)
		}
		return s, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	b, err = os.ReadFile(l.pid())
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", l.pid(), err)
	}
	return &AgentState{PID: pid, StateDir: l.state}, nil
}

// announce writes down who the agent is: agent.pid last, for it says that it is ready.
func (r *Runtime) announce(log *os.File) error {
	s := AgentState{
		PID: os.Getpid(), Version: r.version, Program: r.program, Started: r.clock().UTC(),
		StartedBy: "hand", StateDir: r.state,
	}
	if unit, user := ownUnit(); unit != "" {
		s.StartedBy, s.Unit, s.User = "systemd", unit, user
	} else if sameFile(os.Stderr, log) {
		s.StartedBy = "process"
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(r.agentState(), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return atomicfile.Write(r.pid(), []byte(strconv.Itoa(s.PID)+"\n"), 0o644)
}

// retract removes what announce wrote.
func (r *Runtime) retract() error {
	var errs []error
	for _, path := range []string{r.pid(), r.agentState()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func sameFile(a, b *os.File) bool {
	ai, aerr := a.Stat()
	bi, berr := b.Stat()
	return aerr == nil && berr == nil && os.SameFile(ai, bi)
}
