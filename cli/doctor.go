// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes"
)

// doctoring is the flags of doctor.
type doctoring struct {
	everything bool // passes too
	everywhere bool // all namespaces
	list       bool
	output     string
}

func newDoctorCommand(a *app) *cobra.Command {
	var o doctoring
	c := &cobra.Command{
		Use: "doctor [CLUSTER…]", Short: "Look whether everything can be brought back, and say what to do where it cannot",
		Long: `Look whether everything can be brought back, and say what to do where it cannot.

The agent, every repository, and the clusters of the namespace, or those that are
named, are looked at, all at once. Nothing is changed, and the agent need not run. What
does not answer within 5 seconds is told so. On Kubernetes the operator looks at the
repositories, and kbcli beside each primary at its server; who may not run commands in
their pods is told what the objects tell.

  PASS   it is as it should be
  WARN   it may soon not be, or it could not be looked at
  FAIL   a promise is broken, or cannot be made

What passes is counted, and shown with --all. A line "next:" is something that can be
pasted. The names of the checks stay the same; --list says what each looks at.

The exit code is 0 if all passes, 3 with warnings, 1 with failures.`,
		Example:           "  kbcli doctor\n  kbcli doctor my-pg --all\n  kbcli doctor -A -o json",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 0),
		RunE:              func(c *cobra.Command, args []string) error { return a.doctor(c.Context(), o, args) },
	}
	f := c.Flags()
	f.BoolVar(&o.everything, "all", false, "show what passes too")
	f.BoolVarP(&o.everywhere, "all-namespaces", "A", false, "the clusters of all namespaces")
	f.BoolVar(&o.list, "list", false, "say what the checks are, and look at nothing")
	outputFlag(c, &o.output, "json|yaml")
	return c
}

// diagnosis is what -o json prints.
type diagnosis struct {
	Level    checkup.Level       `json:"level"` // the worst
	Subjects []runtimes.Examined `json:"subjects"`
}

func (a *app) doctor(ctx context.Context, o doctoring, names []string) error {
	if o.output != "" && o.output != "json" && o.output != "yaml" {
		return unknownOutput(o.output, "json|yaml")
	}
	if o.list {
		return a.listChecks(o.output)
	}
	rt, err := a.runtime(ctx) // an agent that does not run is a finding: it is not started
	if err != nil {
		return err
	}
	d, ok := rt.(runtimes.Doctor)
	if !ok {
		return failed("there is nothing that could be looked at from here")
	}
	namespace := a.namespace
	if o.everywhere {
		namespace = ""
	}
	found, err := d.Examine(ctx, namespace, names)
	if err != nil {
		return err
	}
	levels := map[checkup.Level]int{}
	worst := checkup.Pass
	for _, x := range found {
		for _, f := range x.Findings {
			levels[f.Level]++
		}
		if w := checkup.Worst(x.Findings); w == checkup.Fail || worst == checkup.Pass {
			worst = w
		}
	}
	if o.output != "" {
		err = a.value(o.output, diagnosis{worst, found})
	} else {
		a.showFindings(found, o.everything)
		a.say("%s passed, %s, %s", count(levels[checkup.Pass], "check"), count(levels[checkup.Warn], "warning"), count(levels[checkup.Fail], "failure"))
	}
	switch {
	case err != nil:
		return err
	case worst == checkup.Fail:
		return newProblem(exitFailed, "%s", count(levels[checkup.Fail], "check")+" failed")
	case worst == checkup.Warn:
		a.warned = true
	}
	return nil
}

// showFindings prints what does not pass, subject by subject; with all of it what passes
// too.
func (a *app) showFindings(found []runtimes.Examined, all bool) {
	for _, x := range found {
		var shown []checkup.Finding
		width := 0
		for _, f := range x.Findings {
			if all || f.Level != checkup.Pass {
				shown, width = append(shown, f), max(width, len(f.Check))
			}
		}
		if len(shown) == 0 {
			continue
		}
		a.say("%s", x.Subject)
		for _, f := range shown {
			a.say("  %s   %-*s   %s", strings.ToUpper(string(f.Level)), width, f.Check, oneLine(f.Evidence))
			for line := range strings.SplitSeq(strings.TrimSpace(f.Next), "\n") {
				if line != "" {
					a.say("         next: %s", line)
				}
			}
		}
		fmt.Fprintln(a.stdio.Out)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (a *app) listChecks(output string) error {
	known := checkup.Doctor()
	if output != "" {
		return a.value(output, known)
	}
	t := &table{header: []string{"CHECK", "LOOKS AT"}}
	for _, k := range known {
		t.add(k.Name, k.About)
	}
	t.write(a.stdio.Out)
	return nil
}
