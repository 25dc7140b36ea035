// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/local"
	"github.com/kbcli/kbcli/runtimes/store"
)

// newAgentCommand makes `kbcli agent`: what acts upon the objects of this machine.
// It is started by the first verb that needs it, or by systemd.
func newAgentCommand(a *app) *cobra.Command {
	c := group(&cobra.Command{
		Use: "agent", Short: "See to the process that archives and backs up on this machine",
		Example: "  kbcli agent status\n  kbcli agent restart",
	}, newAgentRunCommand(a), newAgentStatusCommand(a), newAgentStopCommand(a), newAgentRestartCommand(a))
	c.AddCommand(newAgentPodCommands(a)...)
	return c
}

func newAgentRunCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "Look after the clusters of this machine until a signal comes", Args: noArgs,
		Example: "  kbcli agent run --state-dir /var/lib/kubeblocks",
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := a.stateDirectory()
			if err != nil {
				return err
			}
			rt, err := openLocal(c.Context(), a, dir, slog.New(slog.NewJSONHandler(a.stdio.Err, nil)))
			if err != nil {
				return err
			}
			err = rt.RunAgent(c.Context())
			if c.Context().Err() != nil {
				return nil // a signal is how it ends
			}
			var runs *local.AgentRunsError
			if errors.As(err, &runs) {
				p := conflict("%v", runs).then("kbcli agent status --state-dir %s", runs.StateDir)
				p.cause = err
				return p
			}
			return err
		},
	}
}

// agentStatus is what `kbcli agent status -o json` prints.
type agentStatus struct {
	*local.AgentState
	ClientVersion string         `json:"clientVersion"`
	Clusters      map[string]int `json:"clusters"` // how many there are in each phase
}

func newAgentStatusCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "status", Short: "Show the agent: its process, version, and how it was started", Args: noArgs,
		Example: "  kbcli agent status\n  kbcli agent status -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.onMachine(); err != nil {
				return err
			}
			s, err := a.agentState()
			if err != nil {
				return err
			}
			if s == nil {
				return a.noAgent()
			}
			rt, err := a.runtime(c.Context())
			if err != nil {
				return err
			}
			clusters, err := store.List[*v1alpha1.Cluster](c.Context(), rt.Store(), "", nil)
			if err != nil {
				return err
			}
			phases := map[string]int{}
			for _, o := range clusters {
				phases[string(o.Status.Phase)]++
			}
			if output != "" {
				return a.value(output, agentStatus{s, version, phases})
			}
			a.agentFacts(s, len(clusters), phases[string(v1alpha1.ClusterRunning)]).write(a.stdio.Out)
			a.noteAgentVersion(s)
			return nil
		},
	}
	outputFlag(c, &output, "json|yaml")
	return c
}

func (a *app) agentFacts(s *local.AgentState, clusters, running int) facts {
	var f facts
	f.add("Process", strconv.Itoa(s.PID))
	f.add("Version", agentVersion(s))
	f.add("Since", a.at(s.Started))
	switch {
	case s.Unit != "" && s.User:
		f.add("Started By", "systemd of the user, unit "+s.Unit)
	case s.Unit != "":
		f.add("Started By", "systemd, unit "+s.Unit)
	case s.StartedBy == "process":
		f.add("Started By", "a command that needed it; a process of its own")
	case s.StartedBy != "":
		f.add("Started By", "hand: kbcli agent run")
	}
	f.add("Program", s.Program)
	f.add("State Directory", s.StateDir)
	f.add("Clusters", strconv.Itoa(clusters)+", of which "+strconv.Itoa(running)+" running")
	return f
}

func newAgentStopCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "End the agent in order; the servers go on", Args: noArgs,
		Long: `End the agent in order. The servers go on, and keep their WAL until an agent
archives it again. The next command that has something done starts one.`,
		Example: "  kbcli agent stop",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.onMachine(); err != nil {
				return err
			}
			s, err := a.agentState()
			if err != nil {
				return err
			}
			if s == nil {
				a.say("No agent was running")
				return nil
			}
			rt, err := a.localRuntime(c.Context())
			if err != nil {
				return err
			}
			if _, err := rt.StopAgent(c.Context()); err != nil {
				return err
			}
			a.say("Agent stopped")
			a.note("The servers go on. Their WAL waits with them until an agent runs: kbcli agent restart")
			return nil
		},
	}
}

func newAgentRestartCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "restart", Short: "End the agent in order, if one runs, and start one; the servers go on", Args: noArgs,
		Example: "  kbcli agent restart",
		RunE: func(c *cobra.Command, _ []string) error {
			rt, err := a.localRuntime(c.Context())
			if err != nil {
				return err
			}
			if err := rt.RestartAgent(c.Context()); err != nil {
				return err
			}
			s, err := rt.Agent()
			if err != nil {
				return err
			}
			if s == nil {
				return failed("the agent was started and has ended").then("kbcli agent run")
			}
			a.say("Agent restarted: process %d, version %s", s.PID, agentVersion(s))
			return nil
		},
	}
}

func (a *app) localRuntime(ctx context.Context) (*local.Runtime, error) {
	rt, err := a.runtime(ctx)
	if err != nil {
		return nil, err
	}
	l, ok := rt.(*local.Runtime)
	if !ok {
		return nil, notOfMachine()
	}
	return l, nil
}

func notOfMachine() *problem {
	return usage("there is an agent to see to on this machine only").hints("--context local").then("kbcli kubeblocks status")
}

// onMachine refuses a context that is not this machine.
func (a *app) onMachine() error {
	if k, err := a.currentContext(); err != nil || k.name == localContext {
		return err
	}
	return notOfMachine()
}

// agentState is what the agent says of itself; nil if none runs. It makes no state
// directory.
func (a *app) agentState() (*local.AgentState, error) {
	dir, err := a.stateDirectory()
	if err != nil {
		return nil, err
	}
	return local.AgentOf(dir)
}

func (a *app) noAgent() error {
	dir, err := a.stateDirectory()
	if err != nil {
		return err
	}
	return missing("no agent looks after %s", dir).then("kbcli agent restart --state-dir %s", dir)
}

func agentVersion(s *local.AgentState) string {
	if s.Version == "" {
		return "unknown"
	}
	return s.Version
}

// noteAgentVersion says once that the agent is another version than this program.
func (a *app) noteAgentVersion(s *local.AgentState) {
	if s == nil || s.Version == version || a.versionNoted {
		return
	}
	a.versionNoted = true
	a.note("note: the agent is version %s, and this is %s", agentVersion(s), version)
	if program, err := local.Program(); err == nil && program == s.Program {
		a.note("note: it takes up the new version by itself when no backup and no restore is under way")
		return
	}
	a.note("note: it is run by %s", s.Program)
}

// agentKeeper is a runtime with an agent of its own.
type agentKeeper interface {
	Agent() (*local.AgentState, error)
	Revive(ctx context.Context) (bool, error)
}

// meetAgent notes an agent of another version, when a verb is about to need it.
func (a *app) meetAgent() {
	k, ok := a.rt.(agentKeeper)
	if !ok {
		return
	}
	// the verb itself says what is wrong with an agent that it cannot reach
	if s, err := k.Agent(); err == nil && s != nil && time.Since(s.Started) > agentCatchesUp {
		a.noteAgentVersion(s)
	}
}

// agentCatchesUp is how long an agent that just began is not complained about.
const agentCatchesUp = 5 * time.Second

// revive brings back an agent that should be there: after a restart of the machine
// the first command does it, whichever it is.
func (a *app) revive(ctx context.Context) error {
	k, ok := a.rt.(agentKeeper)
	if !ok || a.completing {
		return nil
	}
	did, err := k.Revive(ctx)
	if did && err == nil {
		a.note("note: the agent was not running, and was started; servers that were down come up now")
	}
	return err
}

func newVersionCommand(a *app) *cobra.Command {
	var output string
	var client bool
	c := &cobra.Command{
		Use: "version", Short: "Print the version of this program, and of the agent or the operator", Args: noArgs,
		Example: "  kbcli version\n  kbcli version -o json\n  kbcli version --client",
		RunE: func(c *cobra.Command, _ []string) error {
			words := map[string]string{"kbcli": version}
			if k, err := a.currentContext(); !client && err == nil && k.name != localContext {
				return a.versionThere(c.Context(), words, output)
			}
			var s *local.AgentState
			if !client {
				var err error
				if s, err = a.agentState(); err != nil {
					return err
				}
			}
			if s != nil {
				words["agent"] = agentVersion(s)
			}
			if output != "" {
				return a.value(output, words)
			}
			a.say("kbcli: %s", version)
			switch {
			case client:
			case s == nil:
				a.say("agent: none runs")
			default:
				a.say("agent: %s", agentVersion(s))
			}
			a.noteAgentVersion(s)
			return nil
		},
	}
	c.Flags().BoolVar(&client, "client", false, "of this program only")
	outputFlag(c, &output, "json|yaml")
	return c
}

// versionThere prints the version of what a Kubernetes has.
func (a *app) versionThere(ctx context.Context, words map[string]string, output string) error {
	inst, err := asker[runtimes.Installer](ctx, a, "the version of the operator")
	if err != nil {
		return err
	}
	there, err := inst.Installed(ctx)
	if err != nil {
		return err
	}
	if there != nil {
		words["operator"] = cmp.Or(there.Version, "unknown")
	}
	if output != "" {
		return a.value(output, words)
	}
	a.say("kbcli: %s", version)
	if there == nil {
		a.say("operator: none is installed")
		return nil
	}
	a.say("operator: %s", words["operator"])
	return nil
}
