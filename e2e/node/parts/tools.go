// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package parts keeps go.mod from forgetting the programs that are built as they are.
package parts

import (
	_ "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter"
	_ "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller"
)
