// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
)

var _ runtimes.InstanceLister = (*Runtime)(nil)

// askPatience is how long a server is asked about itself.
const askPatience = 5 * time.Second

// Instances is the one server that a cluster has on this machine. What it is, is asked
// of the server itself; one that does not answer has no role.
func (r *Runtime) Instances(ctx context.Context, c *v1alpha1.Cluster) ([]runtimes.Instance, error) {
	node, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of this machine: %w", err)
	}
	i := runtimes.Instance{
		Name: c.Name + "-postgresql-0", Namespace: c.Namespace, Cluster: c.Name, Component: "postgresql",
		Status: string(c.Status.Phase), CPU: share(c.Spec.Resources.CPU), Memory: share(c.Spec.Resources.Memory),
		Node: node, Created: c.CreationTimestamp.UTC(),
	}
	if i.Status == "" {
		i.Status = string(v1alpha1.ClusterCreating)
	}
	if c.Status.Phase == v1alpha1.ClusterRunning {
		actx, cancel := context.WithTimeout(ctx, askPatience)
		defer cancel()
		if i.Role, i.AccessMode, err = r.role(actx, c); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			// The agent has not seen it yet.
			i.Status = string(v1alpha1.ClusterUnknown)
		}
	}
	data := c.Status.DataDirectory
	if data == "" {
		data = r.data(c.Namespace, c.Name)
	}
	i.Storage = storageOf(data)
	return []runtimes.Instance{i}, nil
}

func (r *Runtime) role(ctx context.Context, c *v1alpha1.Cluster) (role, access string, err error) {
	conn, err := r.Admin(ctx, c, "postgres")
	if err != nil {
		return "", "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var standby, readonly bool
	err = conn.QueryRow(ctx, "select pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool").Scan(&standby, &readonly)
	switch {
	case err != nil:
		return "", "", err
	case standby:
		return "standby", "Readonly", nil
	case readonly:
		return "primary", "Readonly", nil
	}
	return "primary", "ReadWrite", nil
}

// share is a quantity as request and limit, which are one here.
func share(q *resource.Quantity) string {
	if q == nil {
		return ""
	}
	return q.String() + " / " + q.String()
}

// storageOf is the size of a data directory and of the file system that it lies on;
// empty where it cannot be read.
func storageOf(data string) string {
	var st unix.Statfs_t
	if unix.Statfs(data, &st) != nil {
		return ""
	}
	total := v1alpha1.FormatSize(int64(st.Blocks) * st.Bsize)
	used, err := diskUsage(data)
	if err != nil {
		return "? / " + total
	}
	return v1alpha1.FormatSize(used) + " / " + total
}

// diskUsage is how many bytes of disk a data directory and its tablespaces take. Files
// that go away meanwhile do not count.
func diskUsage(data string) (int64, error) {
	used, err := treeUsage(data)
	if err != nil {
		return 0, err
	}
	// pg_wal may be a link, and so is each tablespace.
	links, err := filepath.Glob(filepath.Join(data, "pg_tblspc", "*"))
	if err != nil {
		return 0, err
	}
	for _, link := range append(links, filepath.Join(data, "pg_wal")) {
		if st, err := os.Lstat(link); err != nil || st.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		place, err := filepath.EvalSymlinks(link)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		n, err := treeUsage(place)
		if err != nil {
			return 0, err
		}
		used += n
	}
	return used, nil
}

func treeUsage(dir string) (used int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != dir {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			used += st.Blocks * 512
		}
		return nil
	})
	return used, err
}
