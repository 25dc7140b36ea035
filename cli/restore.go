// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

type restoring struct {
	time, source, backup string
	lsn, xid, point      string
	lineage              string
	namespace            string   // of the source; empty is that of the new cluster
	sets                 []string // what the new cluster has that its source has not
	event                string   // as cluster history names them; becomes lsn and exclusive
	atLSN                pg.LSN   // lsn and xid as they were read
	atXID                pg.XID
	latest, exclusive    bool
	timeline             uint32
	dryRun, wait         bool
	delta                string
	approved             bool
	limits               limiting
	timeout              time.Duration
	output               string

	shape *clusterCreate // what `cluster create --backup` says of the new cluster
	asked []string       // the keys of --set that were given
}

func newRestoreCommand(a *app) *cobra.Command {
	var o restoring
	c := &cobra.Command{
		Use: "restore NEW", Short: "Make a new cluster from another's past",
		Long: `Make a new cluster from another's past.

The other is not touched, and may be deleted already. What will be kept and what
will be lost is shown first, on stderr. "kbcli help restore-time" tells how a
moment can be said. The new cluster has the size, class, replicas and resources of
the other where that is still there, and of each what --set says instead. It may be in another namespace:
-n is where it is made, --source-namespace where the other is or was.

--delta takes a directory that holds most of the data already: that of a cluster that was
deleted with the termination policy Halt, or data.new of a restore that failed. It becomes
the new cluster's. Each file is compared by checksum and only what differs is fetched and
written, so that it costs what changed. What is in it otherwise is lost: the name is asked
for again. A directory is refused on which a server runs, which has another system
identifier, or which any cluster has.`,
		Example: `  kbcli cluster restore new-cluster --restore-to-time "Apr 17,2023 19:56:40 UTC+0800" --source-cluster my-pg
  kbcli cluster restore new-cluster --restore-to-time "10 minutes ago" --source-cluster my-pg --dry-run
  kbcli cluster restore new-cluster --latest --source-cluster my-pg --wait
  kbcli cluster restore new-cluster --restore-to-name before-upgrade --source-cluster my-pg
  kbcli cluster restore new-cluster --restore-to-xid 752 --exclusive --source-cluster my-pg
  kbcli cluster restore new-cluster --backup backup-default-my-pg-20230417195547
  kbcli cluster restore look --latest --source-cluster my-pg -n staging --source-namespace default --set replicas=1,cpu=1,memory=2Gi
  kbcli cluster restore my-pg2 --latest --source-cluster my-pg --delta /var/lib/kubeblocks/clusters/default/my-pg/data`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if err := oneName("cluster")(c, args); err != nil {
				return err
			}
			return o.run(c.Context(), a, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.time, "restore-to-time", "", "the moment; see kbcli help restore-time")
	f.StringVar(&o.source, "source-cluster", "", "the cluster whose past it is")
	f.StringVar(&o.backup, "backup", "", "the end of this backup")
	f.BoolVar(&o.latest, "latest", false, "everything that the repository holds")
	f.StringVar(&o.lsn, "restore-to-lsn", "", "the position in the WAL: the record that starts there or next is the last kept")
	f.StringVar(&o.xid, "restore-to-xid", "", "the transaction that is the last kept")
	f.StringVar(&o.point, "restore-to-name", "", "the restore point, as pg_create_restore_point named it; the newest of that name")
	f.StringVar(&o.event, "before-event", "", "just before this event of kbcli cluster history")
	f.Uint32Var(&o.timeline, "timeline", 0, "the timeline to follow (default the newest)")
	f.StringVar(&o.namespace, "source-namespace", "", "where the source is or was (default the namespace of the new cluster)")
	f.StringArrayVar(&o.sets, "set", nil, "replicas=1,storage=20Gi,storageClass=…,cpu=…,memory=…")
	f.StringVar(&o.lineage, "source-lineage", "", "of several that had the source's name: the lineage, as kbcli cluster describe-backup tells it")
	f.BoolVar(&o.exclusive, "exclusive", false, "stop just before the target: a time, an LSN or a transaction")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be done, and do nothing")
	f.StringVar(&o.delta, "delta", "", "restore over this directory of a stopped server, keeping what is right in it")
	approveFlag(c, &o.approved)
	o.limits.flags(c, "download")
	_ = c.MarkFlagDirname("delta")
	outputFlag(c, &o.output, "json|yaml")
	waitFlags(c, &o.wait, &o.timeout, 24*time.Hour, "the new cluster serves")
	alias(c, "backup", "backup-name")
	a.completeFlag(c, "source-cluster", v1alpha1.KindCluster)
	return c
}

// check judges the flags by themselves.
func (o *restoring) check() error {
	targets := []struct {
		flag string
		is   bool
	}{
		{"--restore-to-time", o.time != ""},
		{"--latest", o.latest},
		{"--restore-to-lsn", o.lsn != ""},
		{"--restore-to-xid", o.xid != ""},
		{"--restore-to-name", o.point != ""},
		{"--before-event", o.event != ""},
		{"--backup", o.backup != ""},
	}
	given := ""
	for _, t := range targets {
		switch {
		case !t.is:
		case given != "":
			return usage("%s and %s are two targets: give one", given, t.flag)
		default:
			given = t.flag
		}
	}
	switch {
	case given == "":
		return usage("must be specified one of the --backup or --restore-to-time").then("kbcli cluster restore --help")
	case given != "--backup" && o.source == "":
		return usage("--source-cluster must be specified if specified %s", given).then("kbcli cluster list")
	case o.exclusive && o.time == "" && o.lsn == "" && o.xid == "":
		return usage("--exclusive is only for --restore-to-time, --restore-to-lsn and --restore-to-xid")
	case o.lineage != "" && o.backup != "":
		return usage("--source-lineage is not for --backup, which has its own")
	case o.timeline != 0 && o.backup != "":
		return usage("--timeline is not for --backup, which has its own")
	case o.approved && o.delta == "":
		return usage("--auto-approve is only for --delta")
	case len(o.point) > 63:
		return usage("the name of a restore point has at most 63 bytes")
	case o.output != "" && !o.dryRun:
		return usage("--output is only for --dry-run")
	case o.output != "" && o.output != "json" && o.output != "yaml":
		return unknownOutput(o.output, "json|yaml")
	}
	return o.read()
}

// read reads the targets that are numbers.
func (o *restoring) read() error {
	if o.event != "" {
		lsn, err := pg.ParseLSN(o.event)
		if err != nil || lsn == 0 {
			return usage("%q is not an event such as 0/3000028", o.event).then("kbcli cluster history %s", o.source)
		}
		o.lsn, o.atLSN, o.exclusive = o.event, lsn, true
	}
	if o.lsn != "" {
		lsn, err := pg.ParseLSN(o.lsn)
		if err != nil || lsn == 0 {
			return usage("%q is not a position in the WAL such as 0/3000028", o.lsn).hints("on a running server: select pg_current_wal_insert_lsn()")
		}
		o.atLSN = lsn
	}
	if o.xid != "" {
		// with an epoch or without, as PostgreSQL takes it
		xid, err := strconv.ParseUint(o.xid, 10, 64)
		if err != nil || uint32(xid) < 3 {
			return usage("%q is not a transaction identifier, a number from 3", o.xid).hints("within a transaction: select pg_current_xact_id()")
		}
		o.atXID = pg.XID(xid)
	}
	return nil
}

func (o *restoring) run(ctx context.Context, a *app, name string) error {
	if _, err := o.limits.spec("download"); err != nil {
		return err
	}
	if o.delta != "" {
		dir, err := filepath.Abs(o.delta)
		if err != nil {
			return err
		}
		o.delta = dir
	}
	s, err := a.objects(ctx)
	if err != nil {
		return err
	}
	if _, err := s.Get(ctx, v1alpha1.KindCluster, a.namespace, name); err == nil && !o.dryRun {
		return store.AlreadyExists(v1alpha1.KindFor[*v1alpha1.Cluster](), name)
	} else if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err := a.admitName(ctx, o, name); err != nil {
		return err
	}
	src, err := o.findSource(ctx, s, cmp.Or(o.namespace, a.namespace))
	if err != nil {
		return err
	}
	p, err := o.plan(ctx, a, src, name)
	if err != nil {
		return &restoreError{source: src, name: name, namespace: a.namespace, show: func(w catalog.Window) string { return a.span(w.From, w.To) }, err: err}
	}
	p.over = o.delta
	fmt.Fprint(a.stdio.Err, p.summary())
	c, err := o.cluster(ctx, s, a.namespace, name, p)
	if err != nil {
		return err
	}
	if o.dryRun {
		if err := o.room(ctx, a, p, c); err != nil {
			a.warn("%v", err)
		}
		if o.output == "" {
			return nil
		}
		return a.value(o.output, p.plan)
	}
	if err := o.room(ctx, a, p, c); err != nil {
		return err
	}
	if o.delta != "" {
		if !o.approved {
			a.note("What is in %s becomes cluster %s as it was then; what else is in it is LOST.", o.delta, name)
		}
		if err := a.confirm(ctx, []string{name}, o.approved); err != nil {
			return err
		}
	}
	if err := a.createCluster(ctx, c); err != nil {
		return err
	}
	a.say("Cluster %s created", name)
	a.unbound(ctx, o.asked)
	if !o.wait {
		a.note("note: it is being restored; kbcli cluster describe %s -n %s shows how far it is", name, a.namespace)
		return nil
	}
	_, err = follow(ctx, a, a.namespace, name, o.timeout, a.judgeRestore)
	return err
}

// admitName says what is wrong with the new cluster as far as it is known before the
// source was asked.
func (a *app) admitName(ctx context.Context, o *restoring, name string) error {
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: name}}
	if err := o.reshape(&c.Spec); err != nil {
		return err
	}
	return a.admitted(ctx, c)
}

// findSource is the cluster whose past is asked for.
func (o *restoring) findSource(ctx context.Context, s store.Store, namespace string) (runtimes.Source, error) {
	src := runtimes.Source{Namespace: namespace, Cluster: o.source, Lineage: o.lineage}
	if o.backup == "" {
		return src, nil
	}
	b, err := store.Get[*v1alpha1.Backup](ctx, s, namespace, o.backup)
	if err != nil {
		return src, err
	}
	switch {
	case b.Status.Phase != v1alpha1.BackupCompleted:
		return src, conflict("backup %q is not completed.", b.Name).then("kbcli cluster list-backup --name=%s -n %s", b.Name, b.Namespace)
	case o.source != "" && o.source != b.Spec.ClusterRef:
		return src, usage("backup %q is of cluster %q, not of %q", b.Name, b.Spec.ClusterRef, o.source)
	}
	src.Cluster, src.Lineage = b.Spec.ClusterRef, b.Status.Lineage
	return src, nil
}

// plan finds out what the target means. Nothing is written.
func (o *restoring) plan(ctx context.Context, a *app, src runtimes.Source, name string) (*preview, error) {
	rt, err := a.runtime(ctx)
	if err != nil {
		return nil, err
	}
	now, err := rt.Clock(ctx, src)
	if err != nil {
		return nil, err
	}
	windows, err := rt.Windows(ctx, src)
	if err != nil {
		return nil, err
	}
	t := catalog.Target{
		Latest: o.latest, Backup: o.backup, LSN: o.atLSN, XID: o.atXID, Name: o.point,
		Exclusive: o.exclusive, Timeline: pg.TimelineID(o.timeline),
	}
	if o.time != "" {
		m, err := o.moment(ctx, a, now, windows)
		if err != nil {
			return nil, err
		}
		switch {
		case m.Keyword == humantime.Latest && o.exclusive:
			return nil, usage("--exclusive is not for latest, which is everything")
		case m.Keyword == humantime.Latest:
			t.Latest = true
		case m.Keyword == humantime.Earliest && o.exclusive:
			return nil, usage("--exclusive is not for earliest, the end of the first backup")
		case m.Keyword == humantime.Earliest:
			t.Earliest = true
		default:
			t.Time = m.Time
		}
	}
	plan, err := rt.Plan(ctx, src, t)
	if err != nil {
		return nil, err
	}
	if o.event != "" && plan.StopLSN != o.atLSN {
		return nil, missing("there is no event %s in the history of cluster %q", o.event, src.Cluster).then("kbcli cluster history %s -n %s", src.Cluster, src.Namespace)
	}
	return &preview{plan: plan, target: t, name: name, source: src, namespace: a.namespace, now: now, zone: a.zone, windows: len(windows)}, nil
}

func (o *restoring) moment(ctx context.Context, a *app, now time.Time, windows []catalog.Window) (humantime.Moment, error) {
	env := humantime.Env{Now: now, Local: a.zone}
	if n := len(windows); n > 0 {
		env.Earliest, env.Latest = windows[0].From, windows[n-1].To
	}
	m, err := humantime.Parse(o.time, env)
	var bare *humantime.NoZoneError
	if !errors.As(err, &bare) || !a.interactive() {
		return m, err
	}
	a.note("%q has no zone. On this machine's clock it is %s, which is %s.", o.time, a.exact(bare.Local), humantime.FormatExact(bare.Local, time.UTC))
	yes, askErr := a.agree(ctx, "Is that the moment?")
	if askErr != nil {
		return m, askErr
	}
	if !yes {
		return m, err
	}
	return humantime.Moment{Time: bare.Local.UTC(), Zone: a.zone}, nil
}

// judgeRestore judges a cluster that is being restored.
func (a *app) judgeRestore(c *v1alpha1.Cluster, exists bool) step {
	if exists && c.Status.Restore != nil {
		r := c.Status.Restore
		switch {
		case r.Phase == v1alpha1.RestoreFailed && c.Status.Phase == v1alpha1.ClusterFailed:
			return step{err: clusterFailed(c)}
		case r.Phase != v1alpha1.RestoreCompleted:
			if st := judgeRunning(c, exists); st.err != nil {
				return st
			}
			return step{line: progressLine(r.Progress, string(r.Phase), a.clock())}
		}
	}
	st := judgeRunning(c, exists)
	if st.done && c.Status.Restore == nil {
		return step{line: "waiting for the agent"}
	}
	if st.done {
		for _, n := range c.Status.Restore.Notes {
			a.note("note: %s", n)
		}
	}
	return st
}
