// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newClusterDescribeCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "describe NAME", Short: "Show a cluster, and the moments it can be brought back to", Args: oneName("cluster"),
		Example:           "  kbcli cluster describe my-pg",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			s, o, err := a.cluster(ctx, args[0])
			if err != nil {
				return err
			}
			a.doubt(ctx, o)
			if done, err := a.object(output, o); done {
				return err
			}
			p, err := defaultPolicy(ctx, s, a.namespace, o.Name)
			var none *problem
			var broken *store.BrokenObject
			if errors.As(err, &broken) {
				a.warn("%v", err)
				err, p = nil, &v1alpha1.BackupPolicy{} // what it says is not known
			}
			if err != nil && !errors.As(err, &none) {
				return err
			}
			return a.describeCluster(ctx, o, p)
		},
	}
	outputFlag(c, &output, describeForms)
	return c
}

func (a *app) describeCluster(ctx context.Context, c *v1alpha1.Cluster, p *v1alpha1.BackupPolicy) error {
	out := a.stdio.Out
	component := "postgresql"
	endpoints, topology, err := a.reached(ctx, c, component)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Name: %s\t Created Time: %s\n", c.Name, a.at(c.CreationTimestamp.Time))
	head := &table{header: []string{"NAMESPACE", "CLUSTER-DEFINITION", "VERSION", "STATUS", "TERMINATION-POLICY"}}
	head.add(c.Namespace, c.Spec.ClusterDefinitionRef, c.Spec.ClusterVersionRef, clusterPhase(c), string(c.Spec.TerminationPolicy))
	head.write(out)
	if c.Status.Message != "" {
		fmt.Fprintf(out, "\nMessage: %s\n", c.Status.Message)
	}

	section := func(name string, t *table) {
		fmt.Fprintf(out, "\n%s:\n", name)
		t.write(out)
	}
	section("Endpoints", endpoints)
	section("Topology", topology)

	resources := &table{header: []string{"COMPONENT", "DEDICATED", "CPU(REQUEST/LIMIT)", "MEMORY(REQUEST/LIMIT)", "STORAGE-SIZE", "STORAGE-CLASS"}}
	cpu, memory := "", ""
	if q := c.Spec.Resources.CPU; q != nil {
		cpu = q.String() + " / " + q.String()
	}
	if q := c.Spec.Resources.Memory; q != nil {
		memory = q.String() + " / " + q.String()
	}
	resources.add(component, "false", cpu, memory, "data:"+c.Spec.Storage.String(), c.Spec.StorageClassName)
	section("Resources Allocation", resources)

	images := &table{header: []string{"COMPONENT", "TYPE", "IMAGE"}}
	image := ""
	if c.Status.Version != "" {
		image = "PostgreSQL " + c.Status.Version
	}
	images.add(component, component, image)
	section("Images", images)

	if r := c.Status.Restore; r != nil {
		fmt.Fprint(out, "\nRestore:\n")
		a.restoreFacts(c, r).write(out)
	}
	section("Data Protection", a.protection(c, p))
	if p != nil && !p.Spec.Limits.IsZero() {
		fmt.Fprintf(out, "\nBackups are limited to: %s\n", limitWords(p.Spec.Limits))
	}
	a.describeArchive(c, section)
	return nil
}

// reached is where programs connect to, and the servers: those that there are where
// clusters have addresses of their own, and else the one.
func (a *app) reached(ctx context.Context, c *v1alpha1.Cluster, component string) (endpoints, topology *table, err error) {
	endpoints = &table{header: []string{"COMPONENT", "MODE", "INTERNAL", "EXTERNAL"}}
	topology = &table{header: []string{"COMPONENT", "INSTANCE", "ROLE", "STATUS", "AZ", "NODE", "CREATED-TIME"}}
	rt, err := a.runtime(ctx)
	if err != nil {
		return nil, nil, err
	}
	lister, ok := rt.(runtimes.EndpointLister)
	if !ok {
		internal := ""
		if c.Status.Port != 0 {
			internal = fmt.Sprintf("127.0.0.1:%d", c.Status.Port)
		}
		endpoints.add(component, "ReadWrite", internal, "")
		topology.add(component, c.Name+"-postgresql-0", "primary", clusterPhase(c), "", "", a.at(c.CreationTimestamp.Time))
		return endpoints, topology, nil
	}
	for _, e := range lister.Endpoints(c) {
		endpoints.add(component, e.Mode, fmt.Sprintf("%s:%d", e.Host, e.Port), "")
	}
	servers, ok := rt.(runtimes.InstanceLister)
	if !ok {
		return endpoints, topology, nil
	}
	all, err := servers.Instances(ctx, c)
	for _, i := range all {
		topology.add(component, i.Name, i.Role, i.Status, i.Zone, i.Node, a.at(i.Created))
	}
	return endpoints, topology, err
}

// protection is a row for each window, or one without; windows that another timeline than
// the present one leads to come last, with its number.
func (a *app) protection(c *v1alpha1.Cluster, p *v1alpha1.BackupPolicy) *table {
	t := &table{header: []string{"AUTO-BACKUP", "BACKUP-SCHEDULE", "TYPE", "BACKUP-TTL", "LAST-SCHEDULE", "RECOVERABLE-TIME"}}
	row := []string{"Disabled", "", "", "", ""}
	if p != nil {
		row = a.scheduled(p)
	}
	if len(c.Status.Windows) == 0 {
		t.add(append(row, "")...)
	}
	for _, w := range c.Status.Windows {
		t.add(append(append([]string{}, row...), a.span(w.From.Time, w.To.Time))...)
	}
	for _, w := range c.Status.Branches {
		t.add(append(append([]string{}, row...), fmt.Sprintf("%s on timeline %d", a.span(w.From.Time, w.To.Time), w.Timeline))...)
	}
	return t
}

// scheduled is AUTO-BACKUP, BACKUP-SCHEDULE, TYPE, BACKUP-TTL and LAST-SCHEDULE:
// of the schedules that are on, or of snapshots when none is.
func (a *app) scheduled(p *v1alpha1.BackupPolicy) []string {
	all := []struct {
		kind string
		s    v1alpha1.Schedule
	}{
		{"snapshot", p.Spec.Schedule.Snapshot},
		{"datafile", p.Spec.Schedule.Datafile},
		{"incremental", p.Spec.Schedule.Incremental},
	}
	auto := "Disabled"
	var crons, kinds []string
	for _, s := range all {
		if s.s.Enable {
			crons, kinds = append(crons, s.s.CronExpression), append(kinds, s.kind)
		}
	}
	if b := p.Spec.Incremental.ReplayBound; !b.IsZero() {
		crons = append(crons, "each "+b.String()+" of WAL")
		if !p.Spec.Schedule.Incremental.Enable {
			kinds = append(kinds, "incremental")
		}
	}
	if len(kinds) > 0 {
		auto = "Enabled"
	} else {
		crons, kinds = []string{all[0].s.CronExpression}, []string{all[0].kind}
	}
	if p.Name == "" {
		auto = "Unknown"
	}
	var last time.Time
	for _, t := range p.Status.LastScheduleTime {
		if t.After(last) {
			last = t.Time
		}
	}
	return []string{auto, strings.Join(crons, ", "), strings.Join(kinds, ", "), p.Spec.Retention.TTL, a.at(last)}
}

func (a *app) restoreFacts(c *v1alpha1.Cluster, r *v1alpha1.RestoreStatus) facts {
	var f facts
	if s := c.Spec.Restore; s != nil {
		f.add("From", s.SourceNamespace+"/"+s.SourceCluster)
		if s.Resolved != nil {
			f.add("Backup", s.Resolved.BackupName)
		}
		f.add("Over", s.Delta)
		f.add("Limits", limitWords(s.Limits))
	}
	f.add("Phase", string(r.Phase))
	f.add("Message", r.Message)
	f.add("Took", r.Took())
	f.add("Planned LSN", r.PlannedLSN)
	f.add("Reached LSN", r.ReachedLSN)
	if r.LastKeptXID != "" {
		f.add("Last kept", fmt.Sprintf("xid %s committed %s", r.LastKeptXID, a.exact(r.LastKeptTime.Time)))
	}
	if r.FirstLostXID != "" {
		f.add("First lost", fmt.Sprintf("xid %s committed %s", r.FirstLostXID, a.exact(r.FirstLostTime.Time)))
	}
	for _, n := range r.Notes {
		f.add("Note", strings.ReplaceAll(n, "\n", " "))
	}
	return f
}

// defaultPolicy is the policy that a cluster's backups use when none is named.
func defaultPolicy(ctx context.Context, s store.Store, namespace, cluster string) (*v1alpha1.BackupPolicy, error) {
	all, err := store.List[*v1alpha1.BackupPolicy](ctx, s, namespace, nil)
	var broken store.BrokenObjects
	if err != nil && !errors.As(err, &broken) {
		return nil, err
	}
	for _, p := range all {
		if p.Spec.ClusterRef == cluster && p.IsDefault() {
			return p, nil
		}
	}
	// A broken policy of this cluster must not read as none.
	if p, err := store.Get[*v1alpha1.BackupPolicy](ctx, s, namespace, v1alpha1.DefaultBackupPolicyName(cluster)); err != nil && !apierrors.IsNotFound(err) {
		return p, err
	}
	return nil, missing("not found any backup policy for cluster %q", cluster)
}
