// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

type clusterCreate struct {
	definition, version, termination, backup string
	sets                                     []string
	wait                                     bool
	timeout                                  time.Duration

	asked []string // the keys of --set that were given
}

func newClusterCreateCommand(a *app) *cobra.Command {
	var o clusterCreate
	c := &cobra.Command{
		Use: "create NAME", Short: "Make a PostgreSQL", Args: oneName("cluster"),
		Long: `Make a PostgreSQL, and the backup policy that goes with it.

The name is of lower-case letters, digits and '-', 40 characters at most. With --backup
the new cluster holds what that backup holds. On one machine there is one server to a
cluster, and storage, storageClass, cpu and memory are written down and bound nothing.`,
		Example: `  kbcli cluster create my-pg
  kbcli cluster create my-pg --cluster-version postgresql-15 --set cpu=2,memory=4Gi,storage=100Gi
  kbcli cluster create my-copy --backup backup-default-my-pg-20230417195547`,
		RunE: func(c *cobra.Command, args []string) error {
			if o.backup != "" {
				r := restoring{backup: o.backup, wait: o.wait, timeout: o.timeout, shape: &o}
				return r.run(c.Context(), a, args[0])
			}
			return o.run(c.Context(), a, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.definition, "cluster-definition", "postgresql", "the kind of database")
	f.StringVar(&o.version, "cluster-version", "", "the major release, postgresql-13 to postgresql-18 (default the newest that is installed)")
	f.StringArrayVar(&o.sets, "set", nil, "replicas=1,storage=20Gi,storageClass=…,cpu=…,memory=…")
	f.StringVar(&o.termination, "termination-policy", "Delete", "what deleting it takes along: Delete, DoNotTerminate, Halt or WipeOut")
	f.StringVar(&o.backup, "backup", "", "restore this backup into it")
	waitFlags(c, &o.wait, &o.timeout, 10*time.Minute, "it serves")
	_ = c.RegisterFlagCompletionFunc("termination-policy", cobra.FixedCompletions([]string{"Delete", "DoNotTerminate", "Halt", "WipeOut"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func waitFlags(c *cobra.Command, wait *bool, timeout *time.Duration, patience time.Duration, until string) {
	c.Flags().BoolVar(wait, "wait", false, "wait until "+until)
	c.Flags().DurationVar(timeout, "timeout", patience, "how long to wait")
}

// clusterVersions are the releases that a cluster can be of.
func clusterVersions() []string {
	var out []string
	for major := pg.OldestMajor; major <= pg.NewestMajor; major++ {
		out = append(out, fmt.Sprintf("postgresql-%d", major))
	}
	return out
}

var shapeKeys = []string{"replicas", "storage", "storageClass", "cpu", "memory"}

// apply gives spec the form that the flags ask for.
func (o *clusterCreate) apply(spec *v1alpha1.ClusterSpec) error {
	spec.ClusterDefinitionRef = o.definition
	spec.TerminationPolicy = v1alpha1.TerminationPolicy(o.termination)
	if o.version != "" {
		spec.ClusterVersionRef = o.version
	}
	var err error
	o.asked, err = reshape(spec, o.sets)
	return err
}

// reshape gives spec the form that --set asks for, and says which keys it has.
func reshape(spec *v1alpha1.ClusterSpec, texts []string) (asked []string, err error) {
	sets, err := parseSets(texts)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		asked = append(asked, s.key)
		var q resource.Quantity
		switch s.key {
		case "storage", "cpu", "memory":
			if q, err = resource.ParseQuantity(s.value); err != nil {
				return nil, usage("%s: %q is not a quantity such as 20Gi or 500m", s.key, s.value)
			}
		}
		switch s.key {
		case "replicas":
			n, err := strconv.ParseInt(s.value, 10, 32)
			if err != nil || n < 1 {
				return nil, usage("replicas: %q is not a number from 1", s.value)
			}
			spec.Replicas = int32(n)
		case "storage":
			spec.Storage = q
		case "storageClass":
			spec.StorageClassName = s.value
		case "cpu":
			spec.Resources.CPU = &q
		case "memory":
			spec.Resources.Memory = &q
		default:
			return nil, unknownKey(s.key, shapeKeys)
		}
	}
	return asked, nil
}

func (o *clusterCreate) run(ctx context.Context, a *app, name string) error {
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: name}}
	if err := o.apply(&c.Spec); err != nil {
		return err
	}
	if err := a.createCluster(ctx, c); err != nil {
		return err
	}
	a.unbound(ctx, o.asked)
	a.say("Cluster %s created", name)
	if !o.wait {
		return nil
	}
	_, err := follow(ctx, a, a.namespace, name, o.timeout, judgeRunning)
	return err
}

// unbound notes which of the keys that were given bind nothing where the cluster lives.
func (a *app) unbound(ctx context.Context, asked []string) {
	rt, err := a.runtime(ctx)
	if err != nil {
		return
	}
	limited, ok := rt.(runtimes.Admitter)
	if !ok {
		return
	}
	var idle []string
	for _, key := range limited.Unenforced() {
		if slices.Contains(asked, key) {
			idle = append(idle, key)
		}
	}
	switch n := len(idle); n {
	case 0:
	case 1:
		a.note("note: %s is recorded, and not enforced on this machine", idle[0])
	default:
		a.note("note: %s and %s are recorded, and not enforced on this machine", strings.Join(idle[:n-1], ", "), idle[n-1])
	}
}

// admitted says what is wrong with a cluster that is to be, in itself and where it is
// to live. Nothing is started for it.
func (a *app) admitted(ctx context.Context, c *v1alpha1.Cluster) error {
	if err := store.Admit(c, nil); err != nil {
		return err
	}
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	if limited, ok := rt.(runtimes.Admitter); ok {
		if err := limited.Admit(c); err != nil {
			p := usage("%v", err)
			var h runtimes.Hinter
			if errors.As(err, &h) {
				p = failed("%v", err).hints("%s", h.Hint())
			}
			p.cause = err
			return p
		}
	}
	return nil
}

// createCluster stores a cluster and the policy that comes with each.
func (a *app) createCluster(ctx context.Context, c *v1alpha1.Cluster) error {
	// What is wrong with it is said before anything is started.
	if err := a.admitted(ctx, c); err != nil {
		return err
	}
	s, err := a.ready(ctx)
	if err != nil {
		return err
	}
	if err := s.Create(ctx, c); err != nil {
		return err
	}
	p := runtimes.FirstPolicy(c)
	err = s.Create(ctx, p)
	if apierrors.IsAlreadyExists(err) {
		a.note("note: backup policy %s was there already, and holds", p.Name)
		return nil
	}
	return err
}
