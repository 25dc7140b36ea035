// SPDX-License-Identifier: Apache-2.0

package checkup

import "time"

// Agent is what is known of the process that archives and backs up.
type Agent struct {
	Err      error // it could not be looked for
	Runs     bool
	PID      int
	Seen     time.Time // when it was alive last; zero when not known
	Clusters int       // that it has to look after

	Version, Own string // of the agent, and of this program

	Unit    string // of systemd, that starts it
	Systemd bool   // this machine has it
	Command string // that starts the agent at boot, for crontab
}

// agentNext starts an agent.
const agentNext = "kbcli agent restart"

// Findings are agent-running, agent-version and agent-at-boot.
func (a *Agent) Findings() []Finding {
	if a.Err != nil {
		return []Finding{warn("agent-running", "kbcli agent status", "whether it runs is not known: %v", a.Err)}
	}
	if !a.Runs {
		return []Finding{a.running()}
	}
	return []Finding{a.running(), a.version(), a.atBoot()}
}

func (a *Agent) running() Finding {
	const check = "agent-running"
	switch {
	case a.Runs:
		return pass(check, "process %d", a.PID)
	case a.Clusters == 0:
		return pass(check, "none runs, and there is no cluster to look after")
	case a.Seen.IsZero():
		return fail(check, agentNext, "none runs: nothing is archived, and no backup is taken")
	}
	return fail(check, agentNext, "none runs since %s or a little later: nothing is archived, and no backup is taken", a.Seen.UTC().Format(time.RFC3339))
}

func (a *Agent) version() Finding {
	const check = "agent-version"
	switch a.Version {
	case a.Own:
		return pass(check, "%s, as this program", a.Version)
	case "":
		return warn(check, agentNext, "the agent does not say which version it is; this program is %s", a.Own)
	}
	return warn(check, agentNext, "the agent is version %s, and this program %s", a.Version, a.Own)
}

func (a *Agent) atBoot() Finding {
	const check = "agent-at-boot"
	switch {
	case a.Unit != "":
		return pass(check, "systemd starts it: %s", a.Unit)
	case a.Systemd:
		return warn(check, agentNext, "it is a process of its own, which systemd does not start again when the machine restarts")
	}
	return warn(check, `(crontab -l; echo "@reboot `+a.Command+`") | crontab -`,
		"nobody starts it when the machine restarts, until a command of kbcli does")
}
