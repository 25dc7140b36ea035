// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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

func (s *scene) repository(ctx context.Context, o *v1alpha1.BackupRepo) runtimes.Examined {
	f, err := within(ctx, func(ctx context.Context) (*checkup.Repository, error) { return s.lookAtRepo(ctx, o), nil })
	if f == nil {
		f = s.describeRepo(o)
		f.Err = fmt.Errorf("%w: %w", blob.ErrUnreachable, err)
	}
	return runtimes.Examined{Subject: "repository " + o.Name, Findings: f.Findings()}
}

// describeRepo is what is known of a repository without touching it.
func (s *scene) describeRepo(o *v1alpha1.BackupRepo) *checkup.Repository {
	f := &checkup.Repository{Names: checkup.Names{Repository: o.Name}, Now: s.now}
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
	for _, b := range s.backups {
		if t := b.Status.CompletionTimestamp.Time; b.Status.Repo == o.Name && b.Status.Phase == v1alpha1.BackupCompleted && t.After(last) {
			last, f.LastBackup = t, b.Status.TotalSize
		}
	}
	for _, c := range s.clusters {
		p := s.policy(c)
		if s.repoOf(p) != o.Name {
			continue
		}
		f.Used = f.Used || p != nil && p.Spec.Schedule.Logfile.Enable
		f.WALPerDay += walPerDay(c.Status.Windows)
		if f.Directory && sameDisk(f.Place, dataOf(s.r, c)) {
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
func (s *scene) lookAtRepo(ctx context.Context, o *v1alpha1.BackupRepo) *checkup.Repository {
	f := s.describeRepo(o)
	began := s.r.clock()
	place, err := lookPlace(ctx, o)
	if err != nil {
		f.Err = err
		return f
	}
	opt := repository.Options{Clock: s.r.clock}
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
	f.Took = s.r.clock().Sub(began)
	f.Sealed = repo.Sealed()
	if f.Sealed && f.Identity && f.KeyErr == nil {
		f.KeyErr = repos.TryKey(ctx, lineages)
	}
	f.Locks, f.LockErr = repo.Locks(ctx)
	if f.Directory {
		if err := unix.Access(f.Place, unix.W_OK); err != nil && s.ownAgent() {
			f.ReadOnly = err
		}
		f.Free, f.Total, _ = room(f.Place) // a total of 0 says that it is not known
	}
	return f
}

// ownAgent tells whether this process is of the account that the agent has: what may be
// written is then the same.
func (s *scene) ownAgent() bool {
	info, err := os.Stat(s.r.state)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// lookPlace opens the place of a repository without patience, and makes nothing.
func lookPlace(ctx context.Context, o *v1alpha1.BackupRepo) (blob.Store, error) {
	if o.Spec.StorageProvider == v1alpha1.ProviderFilesystem {
		return fs.Open(o.Spec.Filesystem.Path)
	}
	return repos.OpenPlace(ctx, o)
}

// room is what is free on the file system of a path, for those who are not root, and how
// big it is.
func room(path string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// dataOf is where the data of a cluster lie.
func dataOf(r *Runtime, c *v1alpha1.Cluster) string {
	if c.Status.DataDirectory != "" {
		return c.Status.DataDirectory
	}
	return r.data(c.Namespace, c.Name)
}

// sameDisk tells whether two paths lie on one disk, as far as the kernel tells. What is
// not there yet is where its parent is.
func sameDisk(a, b string) bool {
	x, xok := diskOf(a)
	y, yok := diskOf(b)
	return xok && yok && x == y
}

// diskOf names the disk of a path: of a partition its whole disk, else the device that
// the file system says.
func diskOf(path string) (string, bool) {
	var st unix.Stat_t
	for unix.Stat(path, &st) != nil {
		if path == filepath.Dir(path) {
			return "", false
		}
		path = filepath.Dir(path)
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	at, err := filepath.EvalSymlinks("/sys/dev/block/" + device)
	if err != nil {
		return device, true // no block device: overlay, btrfs, a network
	}
	if _, err := os.Stat(filepath.Join(at, "partition")); err == nil {
		at = filepath.Dir(at)
	}
	return at, true
}
