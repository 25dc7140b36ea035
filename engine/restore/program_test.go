// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// TestCopyProgram runs programs that were just written, while other processes are
// started without a pause.
func TestCopyProgram(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = exec.CommandContext(ctx, "/bin/true").Run()
			}
		})
	}
	dir := t.TempDir()
	for i := range 200 {
		from, err := os.Open("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, fmt.Sprint("program", i))
		if err := copyProgram(to, from); err != nil {
			t.Fatal(err)
		}
		if err := from.Close(); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command(to).Run(); err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
	}
}
