// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
)

// TestPodsPrimaryLost: the primary of a cluster whose commits wait for the repository is
// gone with its volume, and no acknowledged commit is. All of the disasters are the long
// TestPodsFailover.
func TestPodsPrimaryLost(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "lost")
	p.repository("lost")
	p.protected("my-pg", 2, "sync")
	l := p.write("my-pg")
	l.goesOn(100)
	old, began := p.primary("my-pg"), time.Now()
	p.k.Kubectl(t, "-n", p.ns, "delete", "pvc", "data-"+old, "--wait=false")
	p.crash(old)
	l.goesOn(20)
	t.Logf("rows are written again after %s", time.Since(began))
	for deadline := time.Now().Add(2 * time.Minute); !p.archivedSince("my-pg", began); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("the next primary is not archived: %s", p.field("my-pg", ".status.archive"))
		}
	}
	t.Logf("archived after %s", time.Since(began))
	l.end()
	// Which it is may be either: the pod that lost its volume comes back with a copy of the
	// other, and has all that the other has.
	t.Logf("%s was the primary, and %s is", old, p.primary("my-pg"))
	if lost := l.lost(); len(lost) > 0 {
		t.Errorf("%d rows were acknowledged, and %v are not there", l.count(), lost)
	}
	if gaps := p.field("my-pg", ".status.archive.gaps"); gaps != "" {
		t.Errorf("the archive has gaps: %s", gaps)
	}
}
