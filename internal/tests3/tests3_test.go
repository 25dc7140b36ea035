// SPDX-License-Identifier: Apache-2.0

package tests3

import (
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestServer(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *Server{"plain": Start, "TLS": StartTLS} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			if secure := name == "TLS"; secure != (s.CAFile != "") {
				t.Errorf("CAFile is %q", s.CAFile)
			}
			bucket := s.NewBucket(t)
			if other := s.NewBucket(t); other == bucket {
				t.Errorf("two buckets are called %s", bucket)
			}
			pid := s.process.cmd.Process.Pid
			s.Stop()
			s.Stop()
			if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
				t.Errorf("after Stop the process is still there: %v", err)
			}
			if resp, err := s.client.Get(s.Endpoint + s.health); err == nil {
				resp.Body.Close()
				t.Error("a stopped server answers")
			}
			endpoint := s.Endpoint
			s.Restart()
			if s.Endpoint != endpoint {
				t.Errorf("restarted at %s, was %s", s.Endpoint, endpoint)
			}
			resp, err := s.client.Get(s.Endpoint + s.health)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("after a restart: %v, %v", resp, err)
			}
			resp.Body.Close()
			if _, err := os.Stat(filepath.Join(s.Dir, bucket)); err != nil {
				t.Errorf("bucket lost at restart: %v", err)
			}
		})
	}
}
