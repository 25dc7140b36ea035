// SPDX-License-Identifier: Apache-2.0

package main

import "context"

func (b *bench) archive(ctx context.Context) error { return nil }
func (b *bench) pitr(ctx context.Context) error    { return nil }
