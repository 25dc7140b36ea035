// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/runtimes/kubernetes/ask"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/local"
	"github.com/kbcli/kbcli/runtimes/operator"
	"github.com/kbcli/kbcli/runtimes/operator/pod"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/operator/volumes"
	"github.com/kbcli/kbcli/runtimes/operator/volumesnapshots"
)

func init() {
	hiddenCommands = append(hiddenCommands, newOperatorCommand, newAnswerCommand)
}

// boundMemory has the garbage collector keep to what the container may have, of which a
// tenth is left for what is not Go's. How many processors there are it sees itself.
func boundMemory() {
	n, err := strconv.ParseInt(os.Getenv(names.EnvMemory), 10, 64)
	if err == nil && n > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(n / 10 * 9)
	}
}

func (a *app) jsonLog() *slog.Logger { return slog.New(slog.NewJSONHandler(a.stdio.Err, nil)) }

// newOperatorCommand makes the program of the operator's Deployment.
func newOperatorCommand(a *app) *cobra.Command {
	o := operator.Options{Secrets: specs.SecretsDirectory}
	c := &cobra.Command{
		Use: "operator", Short: "Act upon the objects of the Kubernetes that this pod is in", Args: noArgs,
		Example: "  kbcli operator --postgresql-image registry/postgresql:{major} --kbcli-image registry/kbcli:1",
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Namespace = os.Getenv(specs.EnvNamespace); o.Namespace == "" {
				return fmt.Errorf("%s is not set: it names the namespace of this pod", specs.EnvNamespace)
			}
			boundMemory()
			o.Identity, o.Clock, o.Log = os.Getenv(specs.EnvPod), a.clock, a.jsonLog()
			for _, dir := range []string{o.Secrets, o.State} {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return err
				}
			}
			err := operator.RunInCluster(c.Context(), o)
			if c.Context().Err() != nil {
				return nil // a signal is how it ends
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.Images.PostgreSQL, "postgresql-image", "ghcr.io/kbcli/postgresql:{major}", "Image with PostgreSQL and Patroni; {major} is the release")
	f.StringVar(&o.Images.Kbcli, "kbcli-image", "ghcr.io/kbcli/kbcli:"+version, "Image with kbcli")
	f.StringVar((*string)(&o.Images.PullPolicy), "image-pull-policy", "", "Always, IfNotPresent or Never; empty is what Kubernetes does")
	f.StringVar(&o.Images.SnapshotController, "snapshot-controller-image", "", "Image of the controller of VolumeSnapshots, for a Kubernetes that has none")
	f.StringVar(&o.State, "state", "/tmp/kubeblocks", "Directory for what the operator notes about itself")
	f.StringVar(&o.Metrics, "metrics", ":8080", "Address for /metrics; 0 for none")
	f.StringVar(&o.Probes, "probes", ":8081", "Address for /healthz and /readyz; 0 for none")
	f.BoolVar(&o.Elect, "leader-election", true, "Act only while no other operator does")
	return c
}

// newAnswerCommand makes what the command line asks in a pod.
func newAnswerCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: ask.Command[1], Short: "Read a question about the past from stdin and answer it", Args: noArgs,
		Example: "  kbcli " + ask.Command[1],
		RunE: func(c *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(io.Discard, nil)) // the answer has what there is to say
			config, objects, err := operator.InCluster(log)
			if err != nil {
				return err
			}
			volumes, err := volumesnapshots.New(config)
			if err != nil {
				return err
			}
			o := pod.Options{Objects: objects, Volumes: volumes, Clock: a.clock, Log: log}
			return ask.Serve(c.Context(), pod.Answers{Repositories: o.Repositories(), Now: a.clock}, version, a.stdio.In, a.stdio.Out)
		},
	}
}

// newAgentPodCommands are what a cluster's pods run.
func newAgentPodCommands(a *app) []*cobra.Command {
	open := func(c *cobra.Command, do func(pod.Options) error) error {
		o, err := pod.FromEnvironment(os.Getenv)
		if err != nil {
			return err
		}
		boundMemory()
		o.Clock, o.Log = a.clock, a.jsonLog()
		o, done, err := o.Open(c.Context())
		if err != nil {
			return err
		}
		defer done()
		return do(o)
	}
	return []*cobra.Command{
		{
			Use: "pod", Short: "Look after the server of this pod", Args: noArgs, Hidden: true,
			Example: "  kbcli agent pod",
			RunE: func(c *cobra.Command, _ []string) error {
				return open(c, func(o pod.Options) error { return pod.Run(c.Context(), o) })
			},
		},
		{
			Use: "restore-volume", Short: "Make this pod's volume ready, or restore it", Args: noArgs, Hidden: true,
			Example: "  kbcli agent restore-volume",
			RunE: func(c *cobra.Command, _ []string) error {
				pw := pod.Passwords{Superuser: os.Getenv(specs.EnvSuperuserPassword), Replication: os.Getenv(specs.EnvReplicationPassword)}
				return open(c, func(o pod.Options) error {
					return pod.Prepare(c.Context(), o, pod.PodPlaces(local.AwaitCommand), pw)
				})
			},
		},
		{
			Use: "standby-wal FILE PATH", Short: "Ask the agent for WAL that a standby lacks", Args: cobra.ExactArgs(2), Hidden: true,
			Example: "  kbcli agent standby-wal 000000010000000000000003 pg_wal/RECOVERYXLOG",
			RunE: func(c *cobra.Command, args []string) error {
				code, err := pod.StandbyWAL(c.Context(), args[0], args[1])
				if err != nil {
					fmt.Fprintln(a.stdio.Err, err)
				}
				if code != archive.AwaitFound {
					os.Exit(code) // not an error of ours: the server reads the code
				}
				return nil
			},
		},
		{
			Use: "before-promotion", Short: "Ask the agent whether this server may become the primary", Args: noArgs, Hidden: true,
			Example: "  kbcli agent before-promotion",
			RunE:    func(c *cobra.Command, _ []string) error { return pod.BeforePromotion(c.Context()) },
		},
		{
			Use: "serve-repository", Short: "Serve the volume of a repository that this pod mounts", Args: noArgs, Hidden: true,
			Example: "  kbcli agent serve-repository",
			RunE: func(c *cobra.Command, _ []string) error {
				v := volumes.InPod()
				v.Clock, v.Log = a.clock, a.jsonLog()
				return volumes.Serve(c.Context(), v)
			},
		},
		{
			Use: "copy-program FILE", Short: "Copy this program", Args: cobra.ExactArgs(1), Hidden: true,
			Example: "  kbcli agent copy-program /kbcli/kbcli",
			RunE: func(_ *cobra.Command, args []string) error {
				return copyProgram(args[0])
			},
		},
	}
}

// copyProgram copies this program to a file that is whole or not there.
func copyProgram(to string) (err error) {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	tmp, err := os.CreateTemp(filepath.Dir(to), ".kbcli-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = io.Copy(tmp, from)
	if err = errors.Join(err, tmp.Chmod(0o755), tmp.Close()); err != nil {
		return fmt.Errorf("copy the program to %s: %w", to, err)
	}
	return os.Rename(tmp.Name(), to)
}
