// SPDX-License-Identifier: Apache-2.0

package examination

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/repos"
)

// Here is what only the machine knows that a repository in a directory lies on.
type Here struct {
	Writes   bool // this process is of the account that the agent has
	SameDisk func(path string, c *v1alpha1.Cluster) bool
}

// Repository looks at a repository: opens and lists it, and makes nothing in it.
func (s *Scene) Repository(ctx context.Context, o *v1alpha1.BackupRepo, here Here) runtimes.Examined {
	f, err := within(ctx, func(ctx context.Context) (*checkup.Repository, error) { return s.lookAtRepo(ctx, o, here), nil })
	if f == nil {
		f = s.describeRepo(o, here)
		f.Err = fmt.Errorf("%w: %w", blob.ErrUnreachable, err)
	}
	return runtimes.Examined{Subject: "repository " + o.Name, Findings: f.Findings()}
}

// describeRepo is what is known of a repository without touching it.
func (s *Scene) describeRepo(o *v1alpha1.BackupRepo, here Here) *checkup.Repository {
	f := &checkup.Repository{Names: checkup.Names{Repository: o.Name}, Now: s.Clock()}
	switch {
	case o.Spec.Filesystem != nil:
		f.Directory, f.Place = true, o.Spec.Filesystem.Path
	case o.Spec.S3 != nil:
		f.Place = strings.TrimSuffix(o.Spec.S3.Endpoint+"/"+o.Spec.S3.Bucket+"/"+o.Spec.S3.Prefix, "/")
	}
	if seal := o.Spec.Sealing; seal != nil {
		f.Sealed, f.Identity = true, seal.IdentityFile != ""
	}
	var last time.Time
	for _, b := range s.Backups {
		if t := b.Status.CompletionTimestamp.Time; b.Status.Repo == o.Name && b.Status.Phase == v1alpha1.BackupCompleted && t.After(last) {
			last, f.LastBackup = t, b.Status.TotalSize
		}
	}
	for _, c := range s.Clusters {
		p := s.policy(c)
		if s.repoOf(p) != o.Name {
			continue
		}
		f.Used = f.Used || p != nil && p.Spec.Schedule.Logfile.Enable
		f.WALPerDay += walPerDay(c.Status.Windows)
		if f.Directory && here.SameDisk != nil && here.SameDisk(f.Place, c) {
			f.SameDisk = append(f.SameDisk, c.Namespace+"/"+c.Name)
		}
	}
	slices.Sort(f.SameDisk)
	return f
}

// walPerDay is how much WAL the last window has in a day, raw; 0 for a window that is too
// short to tell.
func walPerDay(ws []v1alpha1.RecoverableWindow) int64 {
	if len(ws) == 0 {
		return 0
	}
	w := ws[len(ws)-1]
	from, ferr := pg.ParseLSN(w.FromLSN)
	to, terr := pg.ParseLSN(w.ToLSN)
	span := w.To.Sub(w.From.Time)
	if ferr != nil || terr != nil || to <= from || span < time.Hour {
		return 0
	}
	return int64(float64(to-from) * float64(24*time.Hour) / float64(span))
}

// lookAtRepo opens and lists a repository, and makes nothing in it.
func (s *Scene) lookAtRepo(ctx context.Context, o *v1alpha1.BackupRepo, here Here) *checkup.Repository {
	f := s.describeRepo(o, here)
	began := s.Clock()
	place, err := lookPlace(ctx, o)
	if err != nil {
		f.Err = err
		return f
	}
	opt := repository.Options{Clock: s.Clock}
	if f.Identity {
		b, err := os.ReadFile(o.Spec.Sealing.IdentityFile)
		if err != nil {
			f.KeyErr = fmt.Errorf("identity: %w", err)
		}
		opt.Identities = string(b)
	}
	repo, err := repository.Open(ctx, place, opt)
	if err != nil {
		f.Err = err
		return f
	}
	lineages, err := repo.Lineages(ctx)
	if err != nil {
		f.Err = err
		return f
	}
	f.Took = s.Clock().Sub(began)
	f.Sealed = repo.Sealed()
	if f.Sealed && f.Identity && f.KeyErr == nil {
		f.KeyErr = repos.TryKey(ctx, lineages)
	}
	f.Locks, f.LockErr = repo.Locks(ctx)
	if f.Directory {
		if err := unix.Access(f.Place, unix.W_OK); err != nil && here.Writes {
			f.ReadOnly = err
		}
		f.Free, f.Total, _ = Room(f.Place) // a total of 0 says that it is not known
	}
	return f
}

// lookPlace opens the place of a repository without patience, and makes nothing.
func lookPlace(ctx context.Context, o *v1alpha1.BackupRepo) (blob.Store, error) {
	if o.Spec.StorageProvider == v1alpha1.ProviderFilesystem {
		return fs.Open(o.Spec.Filesystem.Path)
	}
	return repos.OpenPlace(ctx, o)
}
