// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/local"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/files"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// fakeRuntime keeps real objects and has nobody who acts, but for act.
type fakeRuntime struct {
	objects store.Store
	now     time.Time
	windows []catalog.Window
	plan    *restore.Plan
	err     error // of Clock, Windows and Plan
	target  catalog.Target
	act     func(ctx context.Context) // runs once somebody called Ready
	ready   int
	admin   string // a connection string
	secrets map[string]string
	events  []catalog.Event // of History
}

func (f *fakeRuntime) Store() store.Store { return f.objects }

func (f *fakeRuntime) Ready(ctx context.Context) error {
	if f.ready++; f.ready == 1 && f.act != nil {
		go f.act(ctx)
	}
	return nil
}

func (f *fakeRuntime) Admin(ctx context.Context, _ *v1alpha1.Cluster, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(f.admin)
	if err != nil {
		return nil, err
	}
	cfg.Database = database
	return pgx.ConnectConfig(ctx, cfg)
}

func (f *fakeRuntime) Psql(_ context.Context, c *v1alpha1.Cluster, user, database string) (runtimes.Command, error) {
	return runtimes.Command{Path: "psql", Args: []string{"-U", user, "-d", database}}, nil
}

func (f *fakeRuntime) Plan(_ context.Context, _ runtimes.Source, t catalog.Target) (*restore.Plan, error) {
	f.target = t
	return f.plan, f.err
}

func (f *fakeRuntime) Clock(_ context.Context, src runtimes.Source) (time.Time, error) {
	var none *runtimes.SourceNotFoundError
	if errors.As(f.err, &none) {
		return time.Time{}, &runtimes.SourceNotFoundError{Source: src}
	}
	return f.now, nil
}

func (f *fakeRuntime) Windows(context.Context, runtimes.Source) ([]catalog.Window, error) {
	return f.windows, nil
}

func (f *fakeRuntime) BackupType(context.Context, *v1alpha1.Cluster) (v1alpha1.BackupType, string) {
	return v1alpha1.BackupDatafile, "the file system makes no clones"
}

func (f *fakeRuntime) KeepSecret(_ context.Context, name string, data []byte) (string, error) {
	if f.secrets == nil {
		f.secrets = map[string]string{}
	}
	f.secrets[name] = string(data)
	return "/state/secrets/" + name, nil
}

func (f *fakeRuntime) settings() local.Settings {
	return local.Settings{Objects: f.objects, Ready: f.Ready, Version: version}
}

func (f *fakeRuntime) SettingKeys() []string { return f.settings().SettingKeys() }

func (f *fakeRuntime) Install(ctx context.Context, i runtimes.Installation) error {
	return f.settings().Install(ctx, i)
}

func (f *fakeRuntime) Configure(ctx context.Context, i runtimes.Installation) error {
	return f.settings().Configure(ctx, i)
}

func (f *fakeRuntime) Installed(ctx context.Context) (*runtimes.Installed, error) {
	return f.settings().Installed(ctx)
}

func (f *fakeRuntime) Uninstall(ctx context.Context, u runtimes.Uninstallation) error {
	return f.settings().Uninstall(ctx, u)
}

// bench is a place to type commands at.
type bench struct {
	*fakeRuntime
	t        *testing.T
	typed    string // on the terminal; "" is no terminal
	password string
	env      map[string]string
	launched runtimes.Command
	editor   func(path string) error
}

var shanghai = time.FixedZone("UTC+8", 8*3600)

func clock(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

var pageNow = clock("2023-04-17T11:59:40Z")

func newBench(t *testing.T) *bench {
	t.Helper()
	s, err := files.Open(t.TempDir(), func() time.Time { return pageNow })
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, fakeRuntime: &fakeRuntime{objects: s, now: pageNow}, env: map[string]string{}}
}

// run types one command.
func (b *bench) run(args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	var out, errs bytes.Buffer
	a := newApp(Stdio{In: strings.NewReader(b.typed), Out: &out, Err: &errs})
	a.env = func(k string) string { return b.env[k] }
	a.clock = func() time.Time { return pageNow }
	a.zone = shanghai
	a.interactive = func() bool { return b.typed != "" }
	a.password = func(context.Context) (string, error) { return b.password, nil }
	a.launch = func(_ context.Context, c runtimes.Command) error { b.launched = c; return nil }
	if b.editor != nil {
		a.edit = func(_ context.Context, path string) error { return b.editor(path) }
	}
	a.open = func(context.Context, *app) (runtimes.Runtime, error) { return b.fakeRuntime, nil }
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	code = a.run(ctx, args)
	return out.String(), errs.String(), code
}

// want types one command and compares all of what came of it.
func (b *bench) want(stdout, stderr string, code int, args ...string) {
	b.t.Helper()
	out, errs, got := b.run(args...)
	if diff := cmp.Diff([]string{stdout, stderr}, []string{out, errs}); diff != "" || got != code {
		b.t.Errorf("kbcli %s: code %d, want %d\n-want +got:\n%s", strings.Join(args, " "), got, code, diff)
	}
}

func (b *bench) create(o v1alpha1.Object) {
	b.t.Helper()
	status := o
	if err := b.objects.Create(b.t.Context(), status); err != nil {
		b.t.Fatal(err)
	}
}

// cluster stores a running cluster and its policy.
func (b *bench) cluster(name string, status func(*v1alpha1.ClusterStatus)) {
	b.t.Helper()
	c := &v1alpha1.Cluster{}
	c.Namespace, c.Name = "default", name
	c.Spec.ClusterVersionRef = "postgresql-15"
	b.create(c)
	c.Status.Phase, c.Status.ObservedGeneration, c.Status.Port, c.Status.Version = v1alpha1.ClusterRunning, 1, 5432, "15.8"
	if status != nil {
		status(&c.Status)
	}
	if err := b.objects.UpdateStatus(b.t.Context(), c); err != nil {
		b.t.Fatal(err)
	}
	p := &v1alpha1.BackupPolicy{Spec: v1alpha1.BackupPolicySpec{ClusterRef: name}}
	p.Namespace, p.Name = "default", v1alpha1.DefaultBackupPolicyName(name)
	p.Annotations = map[string]string{v1alpha1.AnnotationDefaultPolicy: "true"}
	p.Spec.Schedule.Snapshot.CronExpression = "0 18 * * 0"
	b.create(p)
}

// backup stores a backup.
func (b *bench) backup(name, cluster string, status v1alpha1.BackupStatus) {
	b.t.Helper()
	o := &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{ClusterRef: cluster, BackupType: v1alpha1.BackupSnapshot}}
	o.Namespace, o.Name = "default", name
	b.create(o)
	o.Status = status
	if err := b.objects.UpdateStatus(b.t.Context(), o); err != nil {
		b.t.Fatal(err)
	}
}

func micro(s string) v1alpha1.MicroTime { return v1alpha1.MicroTimeOf(clock(s)) }
