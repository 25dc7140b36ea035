// SPDX-License-Identifier: Apache-2.0

package mem_test

import (
	"testing"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/blobtest"
	"github.com/kbcli/kbcli/engine/blob/mem"
)

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Store { return mem.New(nil) })
}
