// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/files"
)

// pair is a primary and a standby with an agent beside each.
type pair struct {
	*testing.T
	primary, standby *testpg.Server
	cfg              Config // of the primary's
	place            *gate
	objects          store.Store
}

// gate is a place whose Puts of packs wait while it is shut.
type gate struct {
	blob.Store
	mu   sync.Mutex
	shut chan struct{} // nil: open
}

func (g *gate) Put(ctx context.Context, key string, body blob.Body) error {
	g.mu.Lock()
	ch := g.shut
	g.mu.Unlock()
	if ch != nil && strings.Contains(key, "/pack/") {
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return g.Store.Put(ctx, key, body)
}

func (p *pair) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func newPair(t *testing.T) *pair {
	p := &pair{T: t, primary: testpg.Start(t, testpg.Options{})}
	p.primary.Exec(t, "create table ledger (id int primary key, n int)")
	p.primary.Exec(t, "insert into ledger select i, 0 from generate_series(1, 20000) i")
	p.standby = testpg.Standby(t, p.primary)
	objects, err := files.Open(t.TempDir(), time.Now)
	p.must(err)
	p.objects, p.place = objects, &gate{Store: mem.New(time.Now)}
	_, err = repository.Create(t.Context(), p.place, repository.Options{Clock: time.Now})
	p.must(err)
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}
	c.Spec.Replicas = 2
	p.must(objects.Create(t.Context(), c))
	o := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	o.Spec.ClusterRef, o.Spec.Schedule.Logfile.Enable = "c", true
	p.must(objects.Create(t.Context(), o))
	p.cfg = Config{
		Objects: objects, Namespace: "default", Cluster: "c", Clock: time.Now, Log: slog.New(slog.DiscardHandler), Standbys: true,
		Conninfo: p.primary.ConnString("postgres"), Spool: t.TempDir(), Workers: 2,
		DataDirectory: "/nowhere", // who reads a file of the primary fails
	}
	repo, err := repository.Open(t.Context(), p.place, repository.Options{Clock: time.Now})
	p.must(err)
	p.cfg.OpenRepo = func(context.Context, string) (*repository.Repository, string, error) { return repo, "local", nil }
	return p
}

// protect runs the primary's agent until end is called.
func (p *pair) protect(change func(*Config)) (end func()) {
	cfg := p.cfg
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(p.Context())
	done := make(chan error, 1)
	go func() { done <- New(cfg).Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			p.Error(err)
		}
	})
}

// follow runs the standby's agent until end is called; promoted says that the server was
// promoted.
func (p *pair) follow() (end func(promoted bool)) {
	cfg := p.cfg
	cfg.Conninfo, cfg.DataDirectory = p.standby.ConnString("postgres"), p.standby.DataDir
	t := NewTaker(cfg, "c-1")
	stop, done := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case promoted := <-stop:
				var err error
				if promoted {
					err = t.Promoted(context.Background())
				} else {
					err = t.End(context.Background(), nil)
				}
				if err != nil {
					p.Error(err)
				}
				return
			case <-time.After(50 * time.Millisecond):
				if err := t.Look(p.Context()); err != nil && p.Context().Err() == nil {
					p.Log(err)
				}
			}
		}
	}()
	return func(promoted bool) { stop <- promoted; <-done }
}

func (p *pair) ask(name string, kind v1alpha1.BackupType, target v1alpha1.BackupTarget) {
	p.Helper()
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	b.Spec.ClusterRef, b.Spec.BackupType, b.Spec.Target = "c", kind, target
	p.must(p.objects.Create(p.Context(), b))
}

func (p *pair) until(name, what string, ok func(*v1alpha1.BackupStatus) bool) *v1alpha1.BackupStatus {
	p.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		b, err := store.Get[*v1alpha1.Backup](p.Context(), p.objects, "default", name)
		p.must(err)
		if ok(&b.Status) {
			return &b.Status
		}
		if time.Now().After(deadline) {
			p.Fatalf("backup %s: %s: %+v, standby %+v", name, what, b.Status, b.Status.Standby)
		}
	}
}

func (p *pair) ends(name string, phase v1alpha1.BackupPhase, words string) *v1alpha1.BackupStatus {
	p.Helper()
	st := p.until(name, "ends", func(s *v1alpha1.BackupStatus) bool {
		return s.Phase == v1alpha1.BackupCompleted || s.Phase == v1alpha1.BackupFailed
	})
	if said := st.FailureReason + st.Message; st.Phase != phase || !strings.Contains(said, words) || words == "" && said != "" {
		p.Errorf("backup %s is %s: %s", name, st.Phase, said)
	}
	return st
}

// writes writes to the primary until end is called.
func (p *pair) writes() (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				p.primary.Exec(p.T, "update ledger set n = n + 1 where id % 97 = (random() * 96)::int")
			}
		}
	}()
	return func() { close(stop); <-done }
}

func (p *pair) manifest(name string) *repository.Manifest {
	p.Helper()
	repo, _, err := p.cfg.OpenRepo(p.Context(), "")
	p.must(err)
	ls, err := repo.Lineages(p.Context())
	p.must(err)
	m, err := ls[0].Manifest(p.Context(), name)
	p.must(err)
	return m
}

// TestStandbyBackups: backups under load are of the standby, and the primary's files are
// not read. Where nobody takes one it fails, or is of the primary, as was asked.
func TestStandbyBackups(t *testing.T) {
	defer func(d time.Duration) { offerLife = d }(offerLife)
	p := newPair(t)
	end := p.protect(nil)
	defer end()
	leave := p.follow()
	stop := p.writes()

	p.ask("full", v1alpha1.BackupDatafile, v1alpha1.TargetStandby)
	st := p.ends("full", v1alpha1.BackupCompleted, "")
	if st.Standby == nil || st.Standby.Phase != v1alpha1.StandbyDone || st.Standby.Instance != "c-1" {
		t.Errorf("%+v", st.Standby)
	}
	p.until("full", "is counted", func(s *v1alpha1.BackupStatus) bool { return s.TotalSize > 0 && s.StopLSN != "" && s.Progress == nil })
	_, err := store.Mutate(t.Context(), p.objects, "default", "p", func(o *v1alpha1.BackupPolicy) error {
		o.Spec.Target = v1alpha1.TargetStandby
		return nil
	})
	p.must(err)
	p.ask("more", v1alpha1.BackupIncremental, "") // as the policy says
	p.ends("more", v1alpha1.BackupCompleted, "")
	stop()
	full, more := p.manifest("full"), p.manifest("more")
	for _, m := range []*repository.Manifest{full, more} {
		label, err := pg.ParseBackupLabel(m.Label)
		if err != nil || !label.FromStandby() || len(m.BadPages) > 0 {
			t.Errorf("%s: from %q, %d bad pages, %v", m.Name, label.From, len(m.BadPages), err)
		}
	}
	if more.Base != "full" || more.ReadAll != "" || more.NewBytes >= full.NewBytes {
		t.Errorf("built on %q, %d of %d bytes: %s", more.Base, more.NewBytes, full.NewBytes, more.ReadAll)
	}

	leave(false)
	offerLife = 2 * time.Second
	p.ask("nobody", v1alpha1.BackupDatafile, v1alpha1.TargetStandby)
	p.ends("nobody", v1alpha1.BackupFailed, "no standby takes the backup: within 2s none that follows the primary")
	end()
	end = p.protect(func(c *Config) { c.DataDirectory = p.primary.DataDir })
	defer end()
	p.ask("rather", v1alpha1.BackupDatafile, v1alpha1.TargetPreferStandby)
	p.ends("rather", v1alpha1.BackupCompleted, "it is of the primary: no standby takes the backup")
	end()
	end = p.protect(func(c *Config) { c.Standbys = false })
	defer end()
	p.ask("here", v1alpha1.BackupDatafile, v1alpha1.TargetStandby)
	p.ends("here", v1alpha1.BackupFailed, "on one machine there is none")
}

// TestStandbyGoesOn: agents that end in the middle cost nothing; a standby that is promoted
// voids the backup.
func TestStandbyGoesOn(t *testing.T) {
	p := newPair(t)
	end := p.protect(nil)
	leave := p.follow()
	p.place.shut = make(chan struct{})
	open := sync.OnceFunc(func() {
		p.place.mu.Lock()
		defer p.place.mu.Unlock()
		close(p.place.shut)
		p.place.shut = nil
	})
	defer open()
	p.ask("resumed", v1alpha1.BackupDatafile, v1alpha1.TargetStandby)
	copies := func(s *v1alpha1.BackupStatus) bool {
		return s.Standby != nil && s.Standby.Phase == v1alpha1.StandbyTaken && s.Progress != nil && s.Progress.Phase == "copying"
	}
	p.until("resumed", "is taken", copies)
	leave(false)
	end()
	end = p.protect(nil)
	defer func() { end() }()
	leave = p.follow()
	open()
	p.ends("resumed", v1alpha1.BackupCompleted, "")

	p.place.mu.Lock()
	p.place.shut = make(chan struct{})
	p.place.mu.Unlock()
	p.ask("void", v1alpha1.BackupDatafile, v1alpha1.TargetStandby)
	p.until("void", "is taken", copies)
	p.standby.Promote(t)
	leave(true)
	p.ends("void", v1alpha1.BackupFailed, "standby c-1: it was promoted while the backup was taken")
}

// reoffering is a store in which a backup is offered anew just before it is taken.
type reoffering struct {
	store.Store
	anew func()
}

func (r *reoffering) UpdateStatus(ctx context.Context, o v1alpha1.Object) error {
	if r.anew != nil {
		anew := r.anew
		r.anew = nil
		anew()
	}
	return r.Store.UpdateStatus(ctx, o)
}

// TestStandbyTakesWhatItSaw: a backup that is offered anew while a standby looks how far it
// is has other demands, and is not taken for the old ones.
func TestStandbyTakesWhatItSaw(t *testing.T) {
	p := newPair(t)
	p.ask("b", v1alpha1.BackupDatafile, v1alpha1.TargetStandby)
	offer := func(lsn string) *v1alpha1.Backup {
		b, err := store.MutateStatus(t.Context(), p.objects, "default", "b", func(b *v1alpha1.Backup) error {
			b.Status.Phase = v1alpha1.BackupInProgress
			b.Status.Standby = &v1alpha1.StandbyStatus{Phase: v1alpha1.StandbyOffered, Redo: lsn, From: lsn}
			return nil
		})
		p.must(err)
		return b
	}
	b := offer("0/100")
	cfg := p.cfg
	cfg.Conninfo, cfg.DataDirectory = p.standby.ConnString("postgres"), p.standby.DataDir
	cfg.Objects = &reoffering{p.objects, func() { offer("FF/100") }}
	taker := NewTaker(cfg, "c-1")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ok, err := taker.take(t.Context(), b)
		p.must(err)
		if ok {
			t.Fatal("it was taken")
		}
		if cfg.Objects.(*reoffering).anew == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the standby does not follow")
		}
	}
	st, err := store.Get[*v1alpha1.Backup](t.Context(), p.objects, "default", "b")
	p.must(err)
	if st.Status.Standby.Phase != v1alpha1.StandbyOffered || st.Status.Standby.From != "FF/100" {
		t.Errorf("%+v", st.Status.Standby)
	}
}
