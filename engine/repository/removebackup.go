// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"fmt"
)

// RemoveBackup deletes a backup. Packs that other backups use stay; those of backups
// deleted before go with the last that used them. Interrupted, or run again, it leaves
// nothing broken. Nobody may build on the backup meanwhile.
func (l *Lineage) RemoveBackup(ctx context.Context, name string) error {
	all, err := l.Manifests(ctx)
	if err != nil {
		return err // one that cannot be read may use any pack
	}
	listed, former := map[string]bool{}, map[string]bool{}
	for _, m := range all {
		if m.Name != name {
			listed[m.Name] = true
		}
		for other := range m.Uses {
			former[other] = true
		}
	}
	used := usedPacks(all, name)
	if err := l.DeleteBackup(ctx, name, func(n uint32) bool { return used[PackRef{name, n}] }); err != nil {
		return err
	}
	for other := range former {
		if listed[other] || other == name {
			continue
		}
		numbers, _, err := l.Packs(ctx, other)
		if err != nil {
			return err
		}
		for _, n := range numbers {
			if used[PackRef{other, n}] {
				continue
			}
			if err := l.DeletePack(ctx, PackRef{other, n}); err != nil {
				return fmt.Errorf("delete backup %s: %w", name, err)
			}
		}
	}
	return nil
}

// usedPacks are those that backups use of others, but for what one uses.
func usedPacks(all []*Manifest, but string) map[PackRef]bool {
	used := map[PackRef]bool{}
	for _, m := range all {
		if m.Name == but {
			continue
		}
		for other, numbers := range m.Uses {
			for _, n := range numbers {
				used[PackRef{other, n}] = true
			}
		}
	}
	return used
}
