// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"os"
	"path/filepath"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
)

// wishes are what the objects say about the cluster's archive.
type wishes struct {
	archived bool
	sync     bool // commits wait for the repository
	alone    bool // there is no other server
	repo     string
	lineage  string
	status   *v1alpha1.ArchiveStatus
}

// ask reads them anew, and remembers them.
func (k *keeper) ask(ctx context.Context) (wishes, error) {
	var w wishes
	all, err := store.List[*v1alpha1.BackupPolicy](ctx, k.Objects, k.Namespace, nil)
	var policy *v1alpha1.BackupPolicy
	for _, p := range all {
		if p.Spec.ClusterRef == k.Cluster && p.DeletionTimestamp == nil && (policy == nil || p.IsDefault()) {
			policy = p
		}
	}
	if policy == nil && err != nil {
		return w, err
	}
	if policy != nil && policy.Spec.Schedule.Logfile.Enable {
		w.archived, w.repo = true, policy.Spec.BackupRepoName
		w.sync = policy.Spec.Archive.Mode == v1alpha1.ArchiveSync
	}
	o, err := store.Get[*v1alpha1.Cluster](ctx, k.Objects, k.Namespace, k.Cluster)
	if err != nil {
		return w, err
	}
	w.lineage, w.status, w.alone = o.Status.Lineage, o.Status.Archive, o.Spec.Replicas < 2
	k.mu.Lock()
	k.wishes = &w
	k.mu.Unlock()
	return w, k.mark(w)
}

// mark leaves a note for whoever asks while there is no agent.
func (k *keeper) mark(w wishes) error {
	path := filepath.Join(specs.SpoolDirectory, syncMark)
	_, err := os.Stat(path)
	switch {
	case w.archived && w.sync && os.IsNotExist(err):
		return atomicfile.Write(path, nil, 0o600)
	case !(w.archived && w.sync) && err == nil:
		return os.Remove(path)
	}
	return nil
}

// lastWishes are those that were read last, if there are any.
func (k *keeper) lastWishes(ctx context.Context) (wishes, error) {
	k.mu.Lock()
	w := k.wishes
	k.mu.Unlock()
	if w != nil {
		return *w, nil
	}
	return k.ask(ctx)
}
