// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/reflink"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

// snapshotAddon is the Addon that switches snapshots on.
const snapshotAddon = "snapshot-controller"

// besideData is where the snapshots of a server lie that somebody else runs, and whose
// data directory is on another file system than the state directory.
const besideData = ".kbcli-snapshots"

// BackupType is snapshot where the addon is enabled and the cluster's file system can
// clone files, and else datafile.
func (r *Runtime) BackupType(ctx context.Context, c *v1alpha1.Cluster) (v1alpha1.BackupType, string) {
	data := c.Status.DataDirectory
	if data == "" {
		data = r.data(c.Namespace, c.Name)
	}
	_, err := r.snapshotsOf(ctx, c.Namespace, c.Name, data)
	var no *agent.NoSnapshotError
	switch {
	case errors.As(err, &no):
		return v1alpha1.BackupDatafile, no.Reason
	case err != nil:
		return v1alpha1.BackupDatafile, err.Error()
	}
	return v1alpha1.BackupSnapshot, ""
}

// snapshotPlaces is what a Protector asks where the snapshots of a cluster lie.
func (r *Runtime) snapshotPlaces(ns, name, data string) func(context.Context, string) (repository.Snapshot, error) {
	return func(ctx context.Context, lineage string) (repository.Snapshot, error) {
		dir, err := r.snapshotsOf(ctx, ns, name, data)
		if err != nil {
			return repository.Snapshot{}, err
		}
		machine, err := os.Hostname()
		if err != nil {
			return repository.Snapshot{}, fmt.Errorf("name of this machine: %w", err)
		}
		return repository.Snapshot{Machine: machine, Path: filepath.Join(dir, lineage)}, nil
	}
}

// snapshotsOf is the directory for the snapshots of a cluster, which need not be there
// yet; a *agent.NoSnapshotError if there can be none. It lies outside of the cluster's
// own directory, which goes with the cluster.
func (r *Runtime) snapshotsOf(ctx context.Context, ns, name, data string) (string, error) {
	addon, err := store.Get[*v1alpha1.Addon](ctx, r.objects, "", snapshotAddon)
	if err != nil && !apierrors.IsNotFound(err) {
		return "", err
	}
	if err != nil || !addon.Spec.Install.Enabled {
		return "", &agent.NoSnapshotError{Reason: "the addon " + snapshotAddon + " is not enabled"}
	}
	if data, err = filepath.EvalSymlinks(data); err != nil {
		return "", &agent.NoSnapshotError{Reason: err.Error()}
	}
	dir := filepath.Join(r.state, "snapshots")
	err = basebackup.CanSnapshot(data, existing(dir))
	var no *reflink.Error
	if errors.As(err, &no) && no.Apart() && !strings.HasPrefix(data, r.cluster(ns, name)+"/") {
		dir = filepath.Join(filepath.Dir(data), besideData)
		err = basebackup.CanSnapshot(data, existing(dir))
	}
	switch {
	case err == nil:
		return dir, nil
	case errors.As(err, &no) && no.Unsupported() && no.FileSystem != "xfs":
		return "", &agent.NoSnapshotError{Reason: no.FileSystem + " cannot make reflink snapshots"}
	}
	return "", &agent.NoSnapshotError{Reason: err.Error()}
}

// existing is dir, or the directory above it that is there.
func existing(dir string) string {
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
