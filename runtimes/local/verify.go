// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

var _ runtimes.Verifier = (*Runtime)(nil)

// Verify reads a backup in the calling process.
func (r *Runtime) Verify(ctx context.Context, b *v1alpha1.Backup, progress func(done, total int64)) (*restore.Report, error) {
	l, m, err := r.stored(ctx, b)
	if err != nil {
		return nil, err
	}
	return restore.Verify(ctx, l, m, progress)
}

// stored is what the repository has of a backup that can be read here.
func (r *Runtime) stored(ctx context.Context, b *v1alpha1.Backup) (*repository.Lineage, *repository.Manifest, error) {
	repo, _, err := r.repos.Named(ctx, b.Status.Repo)
	if err != nil {
		return nil, nil, err
	}
	if !repo.Readable() {
		return nil, nil, repository.ErrSealed
	}
	l, err := repo.Lineage(ctx, b.Status.Lineage)
	if err != nil {
		return nil, nil, lost(b, err)
	}
	m, err := l.Manifest(ctx, b.Name)
	if err != nil {
		return nil, nil, lost(b, err)
	}
	return l, m, nil
}

// lost makes damage of what the repository says that it does not hold.
func lost(b *v1alpha1.Backup, err error) error {
	var corrupt *repository.CorruptError
	if errors.Is(err, blob.ErrNotExist) || errors.As(err, &corrupt) {
		return &restore.DamagedError{Backup: b.Name, Damage: []error{err}}
	}
	return fmt.Errorf("verify backup %s: %w", b.Name, err)
}
