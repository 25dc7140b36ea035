// SPDX-License-Identifier: Apache-2.0

package testrepo

import (
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
)

// Info is what a running server says of its own history, as that of the cluster default/t.
func Info(t testing.TB, s *testpg.Server) repository.LineageInfo {
	t.Helper()
	c, err := client.Connect(t.Context(), s.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id, err := c.Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return repository.LineageInfo{
		Namespace: "default", Cluster: "t", SystemID: id.SystemID, Major: id.Version.Major(), SegmentSize: id.SegmentSize,
	}
}

// New makes a repository in a place that is empty, by the machine's clock, and a lineage
// in it.
func New(t testing.TB, store blob.Store, o repository.Options, i repository.LineageInfo) (*repository.Repository, *repository.Lineage) {
	t.Helper()
	o.Clock = time.Now
	repo, err := repository.Create(t.Context(), store, o)
	if err != nil {
		t.Fatal(err)
	}
	lineage, err := repo.CreateLineage(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	return repo, lineage
}
