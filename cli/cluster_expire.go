// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/retention"
	"github.com/kbcli/kbcli/runtimes"
)

func newExpireCommand(a *app) *cobra.Command {
	var dryRun bool
	var output string
	c := &cobra.Command{
		Use: "expire NAME", Short: "Show what a cluster's retention lets go, and why the rest stays", Args: oneName("cluster"),
		Long: `Show what a cluster's retention lets go, and why the rest stays.

Nothing is changed: the agent lets go by itself what the policy does not promise, within
the hour in which it expires.`,
		Example:           "  kbcli cluster expire my-pg --dry-run\n  kbcli cluster expire my-pg --dry-run -o json",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if !dryRun {
				return usage("--dry-run is missing: the agent lets go by itself what has expired").then("kbcli cluster expire %s -n %s --dry-run", args[0], a.namespace)
			}
			return a.expiry(c.Context(), args[0], output)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "show it, and do nothing")
	outputFlag(c, &output, "json|yaml")
	return c
}

// expiry is what a retention would let go, for scripts.
type expiry struct {
	Cluster    string         `json:"cluster"`
	Repository string         `json:"repository"`
	Lineage    string         `json:"lineage"`
	Begins     time.Time      `json:"begins"` // when the promised time begins
	Restoring  bool           `json:"restoring,omitempty"`
	Backups    []expiryBackup `json:"backups"`
	Segments   expirySegments `json:"walSegments"`
}

type expiryBackup struct {
	Name   string    `json:"name"`
	Time   time.Time `json:"time"` // when it ended
	Goes   bool      `json:"goes"`
	Reason string    `json:"reason"`
}

type expirySegments struct {
	Go   uint64 `json:"go"`
	Stay uint64 `json:"stay"`
}

func (a *app) expiry(ctx context.Context, name, output string) error {
	s, c, err := a.cluster(ctx, name)
	if err != nil {
		return err
	}
	p, err := defaultPolicy(ctx, s, a.namespace, name)
	if err != nil {
		return err
	}
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	x, ok := rt.(runtimes.Expirer)
	if !ok {
		return failed("what expires cannot be told from here")
	}
	if c.Status.Lineage == "" {
		a.none("backups", false)
		return nil
	}
	plan, err := x.PlanExpiry(ctx, c, p)
	if err != nil {
		return err
	}
	e := expiryOf(name, plan)
	switch output {
	case "":
	case "json", "yaml":
		return a.value(output, e)
	default:
		return unknownOutput(output, "json|yaml")
	}
	a.showExpiry(e, p.Spec.Retention)
	return nil
}

func expiryOf(name string, plan *runtimes.Expiry) expiry {
	in, list := &plan.Input, &plan.List
	e := expiry{Cluster: name, Repository: plan.Repository, Lineage: plan.Lineage, Begins: list.Begins, Restoring: plan.Restoring, Backups: []expiryBackup{}}
	why := map[string]string{}
	for _, k := range list.KeptBackups {
		why[k.Backup] = string(k.Reason)
	}
	for _, b := range in.Backups {
		reason, stays := why[b.Name]
		switch {
		case stays:
		case b.StopTime.After(in.Now.Add(-in.TTL)):
			reason = fmt.Sprintf("at most %d are kept", in.MaxBackups)
		default:
			reason = "it lies before the promised time"
		}
		e.Backups = append(e.Backups, expiryBackup{b.Name, b.StopTime, !stays, reason})
	}
	slices.SortStableFunc(e.Backups, func(a, b expiryBackup) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Name, b.Name)) })
	all := segments(in.WAL)
	e.Segments.Go = segments(list.WAL)
	e.Segments.Stay = all - min(all, e.Segments.Go)
	return e
}

func segments(rs []retention.Run) (n uint64) {
	for _, r := range rs {
		n += r.To - r.From
	}
	return n
}

func (a *app) showExpiry(e expiry, r v1alpha1.RetentionSpec) {
	t := &table{header: []string{"NAME", "COMPLETION-TIME", "EXPIRES", "REASON"}}
	for _, b := range e.Backups {
		goes := "no"
		if b.Goes {
			goes = "yes"
		}
		t.add(b.Name, a.at(b.Time), goes, b.Reason)
	}
	if len(e.Backups) == 0 {
		a.none("backups", false)
	} else {
		t.write(a.stdio.Out)
	}
	a.note("The promised time (%s) begins %s. WAL: %d segments go, %d stay.", retentionWords(r), a.exact(e.Begins), e.Segments.Go, e.Segments.Stay)
	if e.Restoring {
		a.note("Nothing goes now: somebody restores from %s.", e.Cluster)
	}
}

// retentionWords says what a policy promises.
func retentionWords(r v1alpha1.RetentionSpec) string {
	words := "ttl " + r.TTL
	if r.MinBackups > 0 {
		words += fmt.Sprintf(", at least %d backups", r.MinBackups)
	}
	if r.MaxBackups > 0 {
		words += fmt.Sprintf(", at most %d backups", r.MaxBackups)
	}
	return words
}
