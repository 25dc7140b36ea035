// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// apiServer is the name of its program.
const apiServer = "kube-apiserver"

// switchOf are the files by which a part is ended, and tells that it has.
func switchOf(dir, name string) (off, gone string) {
	return filepath.Join(dir, name+".off"), filepath.Join(dir, name+".gone")
}

// StopAPIServer kills the API server of a Node; etcd stays. It returns when it is dead.
// back starts it again and returns when it is ready; the end of the test does, otherwise.
func (c *Cluster) StopAPIServer(t testing.TB) (back func()) {
	t.Helper()
	off, gone := switchOf(c.dir, apiServer)
	if err := os.WriteFile(off, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := false
	back = func() {
		if done {
			return
		}
		done = true
		if err := os.Remove(off); err != nil {
			t.Errorf("start the API server: %v", err)
			return
		}
		err := untilGone(gone, false)
		if err == nil {
			err = c.waitReady(func() error { return nil }, startLimit)
		}
		if err != nil {
			t.Errorf("start the API server: %v", err)
		}
	}
	t.Cleanup(back)
	if err := untilGone(gone, true); err != nil {
		t.Fatalf("end the API server: %v", err)
	}
	return back
}

// untilGone waits for a file to be there, or not to be.
func untilGone(file string, there bool) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if (err == nil) == there {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nobody looks at the switch: %s", file)
		}
	}
}
