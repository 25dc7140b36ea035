// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes"
)

func newListEventsCommand(a *app) *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "list-events [NAME…]", Aliases: []string{"list-event", "ls-events", "events"}, Short: "List what happened to clusters, oldest first",
		Long: `List what happened to clusters, oldest first.

Without a name: to every cluster of the namespace, and to the backup repositories. The
same event again within an hour is one row, with the time it happened last. A cluster
that was deleted has its events for a month.`,
		Example: `  kbcli cluster list-events my-pg
  kbcli cluster list-events my-pg -w
  kbcli cluster list-events -A -o json`,
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 0),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			reader, err := asker[runtimes.EventReader](ctx, a, "events")
			if err != nil {
				return err
			}
			get := func(ctx context.Context) ([]runtimes.Event, error) { return a.events(ctx, reader, l.all, args) }
			if l.watch {
				return watchValues(ctx, a, l.output, get, eventKey, eventName, a.eventTable)
			}
			events, err := get(ctx)
			if err != nil {
				return err
			}
			return showValues(a, l.output, events, eventName, func() { a.none("events", l.all) },
				func(wide bool) *table { return a.eventTable(events, wide) })
		},
	}
	c.Flags().BoolVarP(&l.all, "all-namespaces", "A", false, "of all namespaces")
	outputFlag(c, &l.output, listForms)
	l.watchFlag(c)
	return c
}

func eventKey(e runtimes.Event) string {
	return strings.Join([]string{e.Namespace, e.Object, e.Reason, e.Message, e.First.String()}, "\x00")
}

func eventName(e runtimes.Event) string { return e.Object }

// events are those of the named clusters, or all of the namespace.
func (a *app) events(ctx context.Context, reader runtimes.EventReader, all bool, names []string) ([]runtimes.Event, error) {
	namespace := a.namespace
	if all {
		namespace = ""
	}
	if len(names) == 0 {
		return reader.Events(ctx, namespace, "")
	}
	var out []runtimes.Event
	for _, name := range names {
		got, err := a.eventsOf(ctx, reader, all, name)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	slices.SortStableFunc(out, func(a, b runtimes.Event) int { return a.Last.Compare(b.Last) })
	return out, nil
}

// eventsOf are those of one cluster. One that never was is missed.
func (a *app) eventsOf(ctx context.Context, reader runtimes.EventReader, all bool, name string) ([]runtimes.Event, error) {
	if all {
		got, err := reader.Events(ctx, "", "")
		return slices.DeleteFunc(got, func(e runtimes.Event) bool { return e.Cluster != name }), err
	}
	got, err := reader.Events(ctx, a.namespace, name)
	if err != nil || len(got) > 0 {
		return got, err
	}
	_, _, err = a.cluster(ctx, name)
	return nil, err
}

func (a *app) eventTable(events []runtimes.Event, wide bool) *table {
	t := &table{header: []string{"NAMESPACE", "TIME", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"}}
	if wide {
		t.header = append(t.header, "FIRST-TIME", "CLUSTER")
	}
	for _, e := range events {
		row := []string{
			e.Namespace, humantime.FormatSeconds(e.Last, a.zone), string(e.Type), e.Reason, e.Object, strconv.Itoa(e.Count), e.Message,
		}
		if wide {
			row = append(row, humantime.FormatSeconds(e.First, a.zone), e.Cluster)
		}
		t.add(row...)
	}
	return t
}
