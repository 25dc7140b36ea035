// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"os"
	"testing"

	"github.com/kbcli/kbcli/internal/testkube"
)

// TestPartition: of two nodes the second is cut off and comes back, and what ran on it
// has run on.
func TestPartition(t *testing.T) {
	c, err := testkube.Up(testkube.Options{Nodes: 2, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Down(); err != nil {
			t.Error(err)
		}
		mustLeaveNothing(t, c)
	}()
	s := newSpace(t, c, "partition")
	s.apply("pair.yaml", "")
	s.wait("pod/far", "pod/near", "--for=condition=Ready")
	asks := func() bool {
		return s.try("exec", "near", "--", "env", "PGCONNECT_TIMEOUT=3", "psql", "-X", "-h", "far", "-U", "postgres", "-c", "select 1")
	}
	s.until("a pod of node1 reaches one of node2 by its service", asks)

	heal := c.Partition(t, "node2")
	if asks() {
		t.Error("node2 is cut off and answers")
	}
	s.until("node2 is missed", func() bool {
		return s.kubectl("get", "node", "node2", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`) == "Unknown"
	})
	heal()
	s.wait("node/node2", "--for=condition=Ready")
	s.until("the pod of node2 is reached again", asks)
	if n := s.kubectl("get", "pod", "far", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); n != "0" {
		t.Errorf("the server on node2 has started %s times again", n)
	}
}
