// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"fmt"
)

// Destroy removes a lineage with everything in it. Its description goes first, so
// that what is left by an interruption is not taken for a lineage.
func (l *Lineage) Destroy(ctx context.Context) error {
	if err := l.repo.store.Delete(ctx, l.descriptionKey()); err != nil {
		return fmt.Errorf("destroy lineage %s: %w", l.info.ID, err)
	}
	for info, err := range l.repo.store.List(ctx, l.key("")) {
		if err == nil {
			err = l.repo.store.Delete(ctx, info.Key)
		}
		if err != nil {
			return fmt.Errorf("destroy lineage %s: %w", l.info.ID, err)
		}
	}
	return nil
}
