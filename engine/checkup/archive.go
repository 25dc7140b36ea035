// SPDX-License-Identifier: Apache-2.0

package checkup

import "time"

// Archive is what is known of a cluster's archiving.
type Archive struct {
	Names
	Wanted    bool // the policy asks for it, and the server is to run
	AgentRuns bool
	Sync      bool // commits wait for the repository

	State  string // in one word, as the status has it; Blocked is one that stands still
	Reason string // in one word, of Error
	Error  string // the last, in its own words; empty when all is well
	Since  time.Duration
	Next   string // what to do about Error

	// LagBytes and Lag are how much WAL the server has written that the repository has
	// not, and how old the oldest of it is; LagErr is why that is not known.
	LagBytes int64
	Lag      time.Duration
	LagErr   error

	// Spool and SpoolLimit are bytes, SpoolFree those free on its file system;
	// negative when that is not known.
	Spool, SpoolLimit, SpoolFree int64

	Gaps []Gap
}

// Gap is WAL that no repository has.
type Gap struct {
	From, To string // LSNs
	Reason   string
	Found    string // when, for people
	// Open says that no backup has been taken since: nothing after it can be restored.
	Open bool
}

const (
	lagTime  = time.Minute
	lagBytes = 1 << 30
)

// Findings are archive-streaming, archive-lag, archive-gap and spool-space.
func (a *Archive) Findings() []Finding {
	return []Finding{a.streaming(), a.lag(), a.gap(), a.space()}
}

func (a *Archive) streaming() Finding {
	const check = "archive-streaming"
	switch {
	case !a.Wanted:
		return pass(check, "WAL is not to be archived")
	case !a.AgentRuns:
		return fail(check, a.revive(), "no agent runs, and so nobody archives: the server keeps its WAL")
	case a.Error != "" && (a.State != "Streaming" || a.Lag > lagTime || a.Since > 5*time.Second):
		return fail(check, a.Next, "%s: %s", a.Reason, a.Error)
	case a.Error != "":
		return warn(check, a.Next, "%s: %s", a.Reason, a.Error)
	case a.State == "Streaming":
		return pass(check, "WAL comes in and goes to the repository %s", a.Repository)
	case a.State == "Gap":
		return pass(check, "WAL comes in again and goes to the repository %s, after a gap", a.Repository)
	case a.State == "Blocked":
		return fail(check, a.describe(), "archiving stands still, and the server keeps its WAL")
	}
	return warn(check, a.describe(), "archiving is %s", a.State)
}

func (a *Archive) lag() Finding {
	const check = "archive-lag"
	switch {
	case !a.Wanted:
		return pass(check, "WAL is not to be archived")
	case a.LagErr != nil:
		return warn(check, a.logs(), "how far the repository is behind is not known: %v", a.LagErr)
	case a.LagBytes == 0:
		return pass(check, "the repository has all that the server has written")
	}
	next := a.Next
	if next == "" {
		next = a.describe()
	}
	if !a.AgentRuns {
		next = a.revive()
	}
	seen := size(a.LagBytes) + " of WAL are not in the repository"
	if a.Lag > 0 {
		seen += ", the oldest for " + span(a.Lag)
	}
	switch late := a.Lag > lagTime || a.LagBytes > lagBytes; {
	case late && (a.Error != "" || a.State == "Blocked" || !a.AgentRuns):
		return fail(check, next, "%s, and nothing goes there", seen)
	case late:
		return warn(check, next, "%s: it is slower than the server writes", seen)
	}
	return pass(check, "%s", seen)
}

func (a *Archive) gap() Finding {
	const check = "archive-gap"
	if len(a.Gaps) == 0 {
		return pass(check, "no WAL is missing")
	}
	last := a.Gaps[len(a.Gaps)-1]
	seen := line("the WAL from %s to %s is missing, found %s: %s", last.From, last.To, last.Found, last.Reason)
	if n := len(a.Gaps); n > 1 {
		seen += " (and " + count(n-1, "earlier gap") + ")"
	}
	if last.Open {
		return fail(check, a.backup(), "%s; nothing after it can be brought back until there is a new backup", seen)
	}
	return warn(check, a.Names.describe(), "%s; no moment between can be brought back", seen)
}

func (a *Archive) space() Finding {
	const check = "spool-space"
	seen := size(a.Spool) + " of " + size(a.SpoolLimit) + " are in use"
	more := a.set("archive.spool.limit=…")
	switch left := a.SpoolLimit - a.Spool; {
	case !a.Wanted:
		return pass(check, "WAL is not to be archived")
	case a.SpoolLimit > 0 && left <= 0:
		return fail(check, more, "the spool is full, %s", seen)
	case a.SpoolLimit > 0 && a.Spool > a.SpoolLimit*8/10:
		return warn(check, more, "the spool is nearly full, %s", seen)
	case a.SpoolFree < 0:
		return warn(check, a.Names.describe(), "%s; the free space of its disk is not known", seen)
	case a.SpoolFree < min(left, 1<<30):
		return warn(check, a.grow(), "%s, and only %s are free on its disk", seen, size(a.SpoolFree))
	}
	return pass(check, "%s, and %s are free on its disk", seen, size(a.SpoolFree))
}
