// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"fmt"
	"strings"
)

// Locks says who holds which lock, by the locks' names. A holder may be gone: it has
// then not renewed its lock for a while.
func (r *Repository) Locks(ctx context.Context) ([]LockedError, error) {
	var names []string
	const prefix = "locks/"
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list locks: %w", err)
		}
		name, _, ok := strings.Cut(strings.TrimPrefix(info.Key, prefix), "/")
		if n := len(names); ok && (n == 0 || names[n-1] != name) {
			names = append(names, name)
		}
	}
	var out []LockedError
	for _, name := range names {
		top, err := r.lockTop(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if top.gen != 0 && !top.free() {
			out = append(out, LockedError{name, top.doc.Holder, top.doc.Renewed})
		}
	}
	return out, nil
}
