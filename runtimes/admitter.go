// SPDX-License-Identifier: Apache-2.0

package runtimes

import "github.com/kbcli/kbcli/api/v1alpha1"

// Admitter is a Runtime that cannot do all that a Cluster may ask for.
type Admitter interface {
	// Admit says why a cluster that is valid in itself cannot be had here.
	Admit(c *v1alpha1.Cluster) error

	// Unenforced lists the keys of `cluster create --set` that are recorded here and
	// bind nothing.
	Unenforced() []string
}
