// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kbcli/kbcli/engine/blob"
)

// Leftovers lists the names of backups that have no manifest and of which something
// lies in the repository that no other backup uses: they were interrupted, or deleted in
// part, or are being taken. One that cannot be read may use any pack: it is an error.
func (l *Lineage) Leftovers(ctx context.Context) ([]string, error) {
	// before the manifests: that of a backup which ends meanwhile is seen
	names, err := l.BackupFolders(ctx)
	if err != nil {
		return nil, err
	}
	all, err := l.Manifests(ctx)
	if err != nil {
		return nil, err
	}
	used := usedPacks(all, "")
	out := []string{}
	for _, name := range names {
		if slices.ContainsFunc(all, func(m *Manifest) bool { return m.Name == name }) {
			continue
		}
		prefix := l.key("backup", name) + "/"
		for info, err := range l.repo.store.List(ctx, prefix) {
			if err != nil {
				return nil, fmt.Errorf("list what is left of backup %s: %w", name, err)
			}
			if isLeft(name, strings.TrimPrefix(info.Key, prefix), used) {
				out = append(out, name)
				break
			}
		}
	}
	return out, nil
}

// isLeft tells whether an object of a backup without a manifest is of no use. What this
// program would not have written is not for it to judge.
func isLeft(name, rest string, used map[PackRef]bool) bool {
	if rest == "files" {
		return true
	}
	number, ok := strings.CutPrefix(rest, "pack/")
	n, err := strconv.ParseUint(number, 10, 32)
	return ok && err == nil && number == fmt.Sprintf("%08d", n) && !used[PackRef{name, uint32(n)}]
}

// Sweep deletes what is left of a backup without a manifest; packs that others use
// stay, and so does a backup that has one. Nobody may take or build on a backup of the
// lineage meanwhile. Interrupted, or run again, it leaves nothing broken.
func (l *Lineage) Sweep(ctx context.Context, name string) error {
	if err := checkBackupName(name); err != nil {
		return err
	}
	switch _, err := l.repo.store.Stat(ctx, l.manifestKey(name)); {
	case err == nil:
		return nil
	case !errors.Is(err, blob.ErrNotExist):
		return err
	}
	return l.RemoveBackup(ctx, name)
}

// PutTombstone replaces what is marked to go; body is package retention's JSON.
func (l *Lineage) PutTombstone(ctx context.Context, body []byte) error {
	return l.repo.replace(ctx, kindTombstone, l.key("tombstone"), body)
}

// Tombstone reads what PutTombstone stored, or fails with blob.ErrNotExist.
func (l *Lineage) Tombstone(ctx context.Context) ([]byte, error) {
	return l.repo.get(ctx, kindTombstone, l.key("tombstone"))
}
