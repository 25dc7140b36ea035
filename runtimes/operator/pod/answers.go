// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/examination"
	"github.com/kbcli/kbcli/runtimes/kubernetes/ask"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Answers is what can be asked of a pod that reaches the repositories.
type Answers struct {
	Repositories *repos.Set
	Now          func() time.Time
}

var _ ask.Answerer = Answers{}

// Plan says what a restore would do.
func (a Answers) Plan(ctx context.Context, src runtimes.Source, t catalog.Target) (*restore.Plan, error) {
	asked := repos.AskedAt(a.Now())
	asked.Written = written
	return a.Repositories.Plan(ctx, src, t, nil, asked)
}

// written is how far the server beside this container has written. One that follows another
// is behind it, and that of another cluster, or of none, does not know.
func written(ctx context.Context, c *v1alpha1.Cluster) (pg.LSN, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := client.Connect(ctx, Options{}.conninfo())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	s, err := conn.Identify(ctx)
	if err != nil {
		return 0, err
	}
	if s.InRecovery || s.SystemID.String() != c.Status.SystemIdentifier {
		return 0, errors.New("the server here is not the primary of cluster " + c.Name)
	}
	var at string
	if err := conn.SQL().QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&at); err != nil {
		return 0, fmt.Errorf("ask the server where it is: %w", err)
	}
	return pg.ParseLSN(at)
}

// Windows lists what can be reached.
func (a Answers) Windows(ctx context.Context, src runtimes.Source) ([]catalog.Window, error) {
	return a.Repositories.Windows(ctx, src)
}

// Clock is that of this pod's node.
func (a Answers) Clock(context.Context, runtimes.Source) (time.Time, error) {
	return a.Now().UTC(), nil
}

// History reads what happened.
func (a Answers) History(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, fn func(catalog.Event, bool) error) error {
	return a.Repositories.History(ctx, src, q, fn)
}

// FollowHistory reads it as it grows, by the clock of this pod's node.
func (a Answers) FollowHistory(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, told func([]runtimes.HistoryEvent) error, looked func()) error {
	clock := func(context.Context) (time.Time, error) { return a.Now(), nil }
	return a.Repositories.FollowHistory(ctx, src, q, clock, told, looked)
}

// Lineages are those of the repositories that this pod has keys of.
func (a Answers) Lineages(ctx context.Context, namespace, cluster string) ([]repository.LineageInfo, error) {
	return a.Repositories.Lineages(ctx, namespace, cluster)
}

// Backup is the object of a backup.
func (a Answers) Backup(ctx context.Context, namespace, name string) (*v1alpha1.Backup, error) {
	return store.Get[*v1alpha1.Backup](ctx, a.Repositories.Objects, namespace, name)
}

// Verify reads a backup back.
func (a Answers) Verify(ctx context.Context, b *v1alpha1.Backup, progress func(done, total int64)) (*restore.Report, error) {
	return a.Repositories.Verify(ctx, b, progress)
}

// Expiry is what a policy lets go of its cluster.
func (a Answers) Expiry(ctx context.Context, namespace, policy string) (*runtimes.Expiry, error) {
	p, err := store.Get[*v1alpha1.BackupPolicy](ctx, a.Repositories.Objects, namespace, policy)
	if err != nil {
		return nil, err
	}
	c, err := store.Get[*v1alpha1.Cluster](ctx, a.Repositories.Objects, namespace, p.Spec.ClusterRef)
	if err != nil {
		return nil, err
	}
	return a.Repositories.PlanExpiry(ctx, c, p)
}

// Examine looks at the server beside this container, or at all repositories.
func (a Answers) Examine(ctx context.Context, src runtimes.Source) ([]runtimes.Examined, error) {
	if src.Cluster == "" {
		return a.examineRepositories(ctx)
	}
	s, err := examination.Look(ctx, a.Repositories.Objects, src.Namespace, a.Now)
	if err != nil {
		return nil, err
	}
	chosen, err := s.Choose(src.Namespace, []string{src.Cluster})
	if err != nil {
		return nil, err
	}
	c := chosen[0]
	p := s.Cluster(ctx, c, Beside(c))
	m := checkup.Machine{Names: p.Names}
	if p.Asked != nil {
		m.Server, m.Here = p.Asked.Clock, p.Asked.Here
	}
	if a := c.Status.Archive; a != nil {
		m.Proven = a.ProvenTime.Time
	}
	return []runtimes.Examined{{Subject: "cluster " + c.Namespace + "/" + c.Name, Findings: append(p.Findings, m.Times())}}, nil
}

// Beside is the server of a cluster as its agent's container sees it.
func Beside(c *v1alpha1.Cluster) examination.Server {
	return examination.Server{
		Conninfo:      func() (string, error) { return Options{}.conninfo(), nil },
		DataDirectory: specs.DataDirectory, Spool: specs.SpoolDirectory, AgentRuns: true,
		Revive: fmt.Sprintf("kbcli cluster logs %s -n %s --agent", c.Name, c.Namespace),
		Grow:   fmt.Sprintf(`kubectl patch cluster %s -n %s --type merge -p '{"spec":{"storage":"SIZE"}}'`, c.Name, c.Namespace),
	}
}

func (a Answers) examineRepositories(ctx context.Context) ([]runtimes.Examined, error) {
	s, err := examination.Look(ctx, a.Repositories.Objects, "", a.Now)
	if err != nil {
		return nil, err
	}
	out := make([]runtimes.Examined, len(s.Repos))
	done := make(chan struct{})
	for i, o := range s.Repos {
		go func() {
			out[i] = s.Repository(ctx, o, examination.Here{})
			done <- struct{}{}
		}()
	}
	for range s.Repos {
		<-done
	}
	return out, nil
}
