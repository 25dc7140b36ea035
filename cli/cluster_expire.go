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

Nothing is changed: the agent marks by itself what the policy does not promise, within
the hour in which it expires, and deletes it when it has been marked for retention.grace.
Until then it can be restored, and stays if the policy promises it again: an edit of
retention.ttl that was a mistake can be undone. The grace counts while an agent looks.`,
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
	Grace      string         `json:"grace"`
	Restoring  bool           `json:"restoring,omitempty"`
	Backups    []expiryBackup `json:"backups"`
	Segments   expirySegments `json:"walSegments"`
	WAL        []expiryWAL    `json:"wal,omitempty"`       // what goes
	Leftovers  []expiryBackup `json:"leftovers,omitempty"` // of backups that were interrupted or deleted in part
}

type expiryBackup struct {
	Name   string    `json:"name"`
	Time   time.Time `json:"time,omitzero"` // when it ended
	Goes   bool      `json:"goes"`
	Reason string    `json:"reason"`
	expiryMark
}

// expiryMark says since when something is marked and when it is deleted. What goes and is
// not marked yet is at the agent's next look.
type expiryMark struct {
	Marked time.Time `json:"marked,omitzero"`
	Until  time.Time `json:"until,omitzero"`
}

// expiryWAL is WAL of one timeline that goes.
type expiryWAL struct {
	Timeline uint32 `json:"timeline"`
	From     string `json:"from"`
	To       string `json:"to"`
	expiryMark
}

type expirySegments struct {
	Go     uint64 `json:"go"`
	Marked uint64 `json:"marked"` // of those that go
	Stay   uint64 `json:"stay"`
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
	e := expiry{Cluster: name, Repository: plan.Repository, Lineage: plan.Lineage, Begins: list.Begins, Grace: plan.Grace.String(), Restoring: plan.Restoring, Backups: []expiryBackup{}}
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
		e.Backups = append(e.Backups, expiryBackup{b.Name, b.StopTime, !stays, reason, markOf(plan, plan.Marked.Backups, plan.Step.Marks.Backups, b.Name)})
	}
	slices.SortStableFunc(e.Backups, func(a, b expiryBackup) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Name, b.Name)) })
	all := segments(in.WAL)
	e.Segments.Go = segments(list.WAL)
	e.Segments.Stay = all - min(all, e.Segments.Go)
	marked := map[retention.Mark]bool{}
	for _, w := range plan.Marked.WAL {
		marked[w.Mark] = true
	}
	for _, w := range plan.Step.Marks.WAL {
		x := expiryWAL{Timeline: uint32(w.Timeline), From: in.SegmentSize.Start(w.From).String(), To: in.SegmentSize.Start(w.To).String()}
		x.Until = plan.Step.Marks.Until(w.Mark, plan.Grace)
		if marked[w.Mark] {
			x.Marked = w.Since
			e.Segments.Marked += w.To - w.From
		}
		e.WAL = append(e.WAL, x)
	}
	for _, name := range in.Leftovers {
		goes := slices.Contains(list.Leftovers, name)
		reason := "it was interrupted, or deleted in part"
		if !goes {
			reason = "somebody may go on with it"
		}
		e.Leftovers = append(e.Leftovers, expiryBackup{Name: name, Goes: goes, Reason: reason, expiryMark: markOf(plan, plan.Marked.Leftovers, plan.Step.Marks.Leftovers, name)})
	}
	return e
}

func segments(rs []retention.Run) (n uint64) {
	for _, r := range rs {
		n += r.To - r.From
	}
	return n
}

// markOf is the mark of one of those that there would be after a look.
func markOf(plan *runtimes.Expiry, have, next map[string]retention.Mark, name string) (m expiryMark) {
	k, ok := next[name]
	if !ok {
		return m
	}
	if _, ok := have[name]; ok {
		m.Marked = k.Since
	}
	m.Until = plan.Step.Marks.Until(k, plan.Grace)
	return m
}

func (a *app) showExpiry(e expiry, r v1alpha1.RetentionSpec) {
	t := &table{header: []string{"NAME", "COMPLETION-TIME", "EXPIRES", "MARKED", "DELETED", "REASON"}}
	for _, b := range append(slices.Clone(e.Backups), e.Leftovers...) {
		goes, marked, until := "no", "", ""
		switch {
		case b.Goes && b.Until.IsZero():
			goes, until = "yes", "at the next look"
		case b.Goes:
			goes, marked, until = "yes", cmp.Or(a.at(b.Marked), "at the next look"), a.at(b.Until)
		}
		t.add(b.Name, a.at(b.Time), goes, marked, until, b.Reason)
	}
	if len(e.Backups)+len(e.Leftovers) == 0 {
		a.none("backups", false)
	} else {
		t.write(a.stdio.Out)
	}
	a.note("The promised time (%s) begins %s. WAL: %d segments go, %d of them are marked, and %d stay.",
		retentionWords(r), a.exact(e.Begins), e.Segments.Go, e.Segments.Marked, e.Segments.Stay)
	if next := e.nextWAL(); !next.IsZero() {
		a.note("The next WAL is deleted %s.", a.at(next))
	}
	if e.Restoring {
		a.note("Nothing goes now: somebody restores from %s.", e.Cluster)
	}
}

// nextWAL is when the next of what is marked is deleted.
func (e expiry) nextWAL() (at time.Time) {
	for _, w := range e.WAL {
		if at.IsZero() || w.Until.Before(at) {
			at = w.Until
		}
	}
	return at
}

// retentionWords says what a policy promises.
func retentionWords(r v1alpha1.RetentionSpec) string {
	words := "ttl " + r.TTL + ", grace " + cmp.Or(r.Grace, v1alpha1.DefaultGrace)
	if r.MinBackups > 0 {
		words += fmt.Sprintf(", at least %d backups", r.MinBackups)
	}
	if r.MaxBackups > 0 {
		words += fmt.Sprintf(", at most %d backups", r.MaxBackups)
	}
	return words
}
