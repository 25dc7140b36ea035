// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Passwords of the roles that a restored server gets.
type Passwords struct{ Superuser, Replication string }

// Places are the directories that Prepare works in; those of specs in a pod.
type Places struct {
	Volume, Data, Spool, Recovery, Tablespaces string
	Bin                                        func(major int) string
	Program                                    string
	Args                                       []string // of the program, for restore.Recovery
	UID, GID                                   int      // whose the data are; -1 is this process's
}

// PodPlaces are those of a pod. args call archive.Await.
func PodPlaces(args ...string) Places {
	return Places{
		Volume: specs.VolumeDirectory, Data: specs.DataDirectory, Spool: specs.SpoolDirectory, Recovery: specs.RecoveryDirectory,
		Tablespaces: specs.TablespaceDirectory, Bin: specs.BinDirectory, Program: specs.ProgramPath, Args: args, UID: -1, GID: -1,
	}
}

// Prepare makes the volume ready for Patroni, and restores what the cluster is to begin
// with.
func Prepare(ctx context.Context, o Options, at Places, pw Passwords) error {
	for _, dir := range []string{filepath.Dir(at.Data), at.Spool} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	// fsGroup gives the group rights to what is restored from a snapshot, and PostgreSQL
	// refuses to start then
	if err := os.Chmod(at.Data, 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, err := store.Get[*v1alpha1.Cluster](ctx, o.Objects, o.Namespace, o.Cluster)
	if err != nil {
		return err
	}
	if c.Spec.Restore == nil {
		return fitsImage(at, c)
	}
	if specs.Ordinal(o.Cluster, o.Pod) != 0 || c.Status.Restore != nil && c.Status.Restore.Phase == v1alpha1.RestoreCompleted {
		return nil // an empty directory is Patroni's to fill: from the primary, or from nothing where that may be
	}
	if r := c.Status.Restore; r != nil && r.Phase == v1alpha1.RestoreFailed {
		return errors.New(r.Message)
	}
	w := &work{Options: o, at: at, pw: pw, limits: c.Spec.Restore.Limits, log: &agent.RestoreLog{
		Objects: o.Objects, Namespace: o.Namespace, Cluster: o.Cluster, Event: o.Event, Clock: o.Clock, Log: o.Log,
	}}
	if c.Spec.Restore.Delta != "" {
		err = errors.New("spec.restore.delta is for one machine: a pod's volume holds nothing yet")
		return errors.Join(err, w.fail(ctx, err))
	}
	err = w.restore(ctx, c)
	if err == nil || ctx.Err() != nil || errors.Is(err, errOtherImage) || errors.Is(err, errUsedVolume) {
		return err
	}
	if errors.Is(err, blob.ErrUnreachable) || store.Passing(err) {
		return err // the kubelet tries again, and the operator tells what it says meanwhile
	}
	return errors.Join(err, w.fail(ctx, err))
}

// fitsImage says why the data that a volume has cannot be run by the image: those of a
// cluster that was halted, and was of another release than the one that takes them up.
func fitsImage(at Places, c *v1alpha1.Cluster) error {
	b, err := os.ReadFile(filepath.Join(at.Data, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if have := strings.TrimSpace(string(b)); have != strconv.Itoa(specs.Major(c)) {
		return fmt.Errorf("the volume holds data of PostgreSQL %s, and the cluster is to be %s: make it with --cluster-version postgresql-%s", have, c.Spec.ClusterVersionRef, have)
	}
	return nil
}

// errOtherImage says that the pod is about to be made anew with the image that the data
// need.
var errOtherImage = errors.New("the data are of another release: the pod is made anew with that")

// work is one restore.
type work struct {
	Options
	at Places
	pw Passwords

	limits *v1alpha1.LimitsSpec

	log *agent.RestoreLog
}

// fail tells that the restore is over. The operator ends the pod then.
func (w *work) fail(ctx context.Context, err error) error {
	if terr := w.log.Failed(ctx, err); terr != nil {
		return terr
	}
	_, terr := store.MutateStatus(ctx, w.Objects, w.Namespace, w.Cluster, func(c *v1alpha1.Cluster) error {
		s := &c.Status
		s.Phase, s.Reason, s.Message, s.ObservedGeneration = v1alpha1.ClusterFailed, agent.RestoreReason(err), err.Error(), c.Generation
		agent.Ready(s, c.Generation, w.Clock())
		return nil
	})
	return terr
}

// restore plans, fetches, recovers, judges, and puts the directory in its place.
func (w *work) restore(ctx context.Context, c *v1alpha1.Cluster) error {
	spec := c.Spec.Restore
	target, err := agent.TargetOf(spec)
	if err != nil {
		return err
	}
	src := runtimes.Source{Namespace: cmp.Or(spec.SourceNamespace, w.Namespace), Cluster: spec.SourceCluster, Lineage: spec.SourceLineage}
	set := w.Repositories()
	set.Volumes = given{spec}
	p, err := set.Plan(ctx, src, target, func(p *restore.Plan) error { return p.Onto(w.at.Volume) }, repos.AskedAt(w.Clock()))
	if err != nil {
		return err
	}
	if err := w.resolve(ctx, p); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(w.at.Bin(p.Major), "postgres")); err != nil {
		if c.Spec.ClusterVersionRef != specs.VersionRef(p.Major) {
			return errOtherImage
		}
		return fmt.Errorf("the image of PostgreSQL has no release %d: %w", p.Major, err)
	}
	taken, err := openTaken(w.at, string(c.UID), p)
	if err != nil {
		return err
	}
	if taken.used() {
		return errors.Join(errUsedVolume, w.askForVolume(ctx))
	}
	if taken.done() {
		return w.log.Reached(ctx, spec, p, &restore.Reached{LSN: p.EndLSN}) // it was there when the last try ended
	}
	reached, err := w.recover(ctx, p, taken)
	if err != nil {
		return err
	}
	return w.log.Reached(ctx, spec, p, reached)
}

// resolve writes down what the target was found to mean, before anything is fetched.
func (w *work) resolve(ctx context.Context, p *restore.Plan) error {
	_, err := store.Mutate(ctx, w.Objects, w.Namespace, w.Cluster, func(c *v1alpha1.Cluster) error {
		if c.Spec.ClusterVersionRef == "" {
			c.Spec.ClusterVersionRef = specs.VersionRef(p.Major)
		}
		if r := c.Spec.Restore; r.Resolved == nil {
			r.Resolved = agent.ResolvedBy(p)
		}
		return nil
	})
	return err
}

func (w *work) recover(ctx context.Context, p *restore.Plan, taken *takenVolume) (*restore.Reached, error) {
	if err := w.log.Planned(ctx, p); err != nil {
		return nil, err
	}
	tmp := w.at.Data + ".new"
	old := []string{tmp, w.at.Recovery, w.at.Tablespaces}
	if taken.OfVolume {
		old = []string{w.at.Recovery}
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	// what an agent left here is another server's, as on a volume that was made from a snapshot
	if err := emptyDirectory(w.at.Spool); err != nil {
		return nil, err
	}
	if p.HasTablespaces() {
		if err := os.MkdirAll(w.at.Tablespaces, 0o700); err != nil {
			return nil, err
		}
	}
	var done, total, fed atomic.Int64
	stop := w.log.Progress(ctx, p, &done, &total, &fed)
	defer stop()
	bound := agent.BoundsOf(w.limits)
	if w.limits == nil || w.limits.Memory.IsZero() {
		bound.Memory /= 2 // the server that recovers has the same container
	}
	held, release := bound.Hold()
	defer release()
	into := restore.Into{
		Bounds:        held,
		DataDirectory: tmp, Tablespaces: w.at.Tablespaces, UID: w.at.UID, GID: w.at.GID, Jobs: runtime.NumCPU(),
		Progress: func(d, t int64) { done.Store(d); total.Store(t) },
	}
	if taken.OfVolume {
		into.Volume = w.at.Volume
	}
	if err := p.Fetch(ctx, into); err != nil {
		return nil, err
	}
	if err := taken.recovers(); err != nil {
		return nil, err
	}
	w.log.Phase(ctx, v1alpha1.RestoreRecovering)
	bin := w.at.Bin(p.Major)
	reached, err := p.Recover(ctx, restore.Recovery{
		Into: into, BinDir: bin, Program: w.at.Program, Args: w.at.Args, Scratch: w.at.Recovery,
		Replayed: func(n int) { fed.Store(int64(n)) },
	})
	if err != nil {
		return nil, err
	}
	stop()
	w.log.Step(ctx, v1alpha1.StepOpening)
	if err := adopt(tmp); err != nil {
		return nil, err
	}
	if err := setRoles(ctx, bin, tmp, w.at, w.pw); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, w.at.Data); err != nil {
		return nil, err
	}
	return reached, os.RemoveAll(w.at.Recovery)
}

func emptyDirectory(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// adopt takes out of a recovered directory what ties it to its source: settings, who may
// come in, and what its Patroni knew. Patroni writes its own.
func adopt(data string) error {
	for _, name := range []string{"patroni.dynamic.json", "postgresql.base.conf", "pg_hba.conf.backup", "pg_ident.conf.backup", "postgresql.conf.backup", "kbcli.conf"} {
		if err := os.Remove(filepath.Join(data, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	auto := filepath.Join(data, "postgresql.auto.conf")
	b, err := os.ReadFile(auto)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for name, text := range map[string]string{
		"postgresql.auto.conf": restore.Isolate(string(b), nil),
		"postgresql.conf":      "# Patroni writes the settings of this server; those of its source are not kept\n",
		"pg_hba.conf":          "# Patroni writes this file\nlocal all " + specs.Superuser + " peer\n",
		"pg_ident.conf":        "# written by kbcli\n",
	} {
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// setRoles gives the superuser and the role of standbys the passwords of the new
// cluster's Secrets, and makes them where the source had them by other names. The server
// is run for it alone, without a socket; passwords go to its standard input.
func setRoles(ctx context.Context, bin, data string, at Places, pw Passwords) error {
	var sql strings.Builder
	for _, r := range []struct{ name, can, password string }{
		{specs.Superuser, "SUPERUSER LOGIN", pw.Superuser},
		{"standby", "REPLICATION LOGIN", pw.Replication},
	} {
		if r.password == "" {
			return fmt.Errorf("there is no password for role %s", r.name)
		}
		quoted := "'" + strings.ReplaceAll(r.password, "'", "''") + "'"
		fmt.Fprintf(&sql, "DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[1]s') THEN CREATE ROLE \"%[1]s\"; END IF; END $do$;\n", r.name)
		fmt.Fprintf(&sql, "ALTER ROLE \"%s\" %s PASSWORD %s VALID UNTIL 'infinity';\n", r.name, r.can, quoted)
	}
	// pg_rewind and Patroni need no more than the superuser has
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--single", "-D", data,
		"-c", "password_encryption=scram-sha-256", "-c", "log_statement=none", "-c", "log_min_error_statement=panic",
		"-c", "log_min_duration_statement=-1", "-c", "exit_on_error=on", "-c", "session_preload_libraries=", "-c", "shared_preload_libraries=", "template1")
	cmd.Env = []string{"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", "TZ=UTC", "HOME=/tmp"}
	if at.UID >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(at.UID), Gid: uint32(at.GID)}}
	}
	cmd.Stdin = strings.NewReader(sql.String())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	for line := range strings.Lines(out.String()) {
		for _, word := range []string{"ERROR:", "FATAL:", "PANIC:"} {
			if _, text, ok := strings.Cut(line, word); ok {
				return fmt.Errorf("set the passwords of the restored server: %s", strings.TrimSpace(text))
			}
		}
	}
	if err != nil {
		return fmt.Errorf("set the passwords of the restored server: %w", err)
	}
	return nil
}
