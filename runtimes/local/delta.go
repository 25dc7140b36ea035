// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
)

var _ runtimes.Overwriter = (*Runtime)(nil)

// CheckDelta looks whether a directory can become a new cluster's: it is nobody's, no
// server runs on it, it holds the same server's files, and it is on the file system of
// the state directory, for it is moved there.
func (r *Runtime) CheckDelta(ctx context.Context, p *restore.Plan, namespace, name, dir string) error {
	data := r.data(namespace, name)
	if _, err := os.Lstat(data); err == nil && dir != data {
		return &restore.NotEmptyError{Dir: data}
	}
	acc, err := serverAccount()
	if err != nil {
		return err
	}
	if err := r.nobodys(ctx, namespace, name, dir); err != nil {
		return err
	}
	if err := p.CheckReuse(dir, acc.uid); err != nil {
		return err
	}
	if err := r.movable(dir); err != nil {
		return err
	}
	return p.CheckRoom(restore.Into{DataDirectory: dir, Tablespaces: r.tablespacesBeside(dir), Delta: &restore.Delta{}})
}

// nobodys refuses a directory of any other cluster, or that the agent's own state is in.
func (r *Runtime) nobodys(ctx context.Context, namespace, name, dir string) error {
	within := func(p, top string) bool {
		rel, err := filepath.Rel(top, p)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
		return &restore.NotReusableError{Dir: dir, Reason: "a symbolic link is in its path: it is " + real}
	}
	if within(r.state, dir) {
		return &restore.NotReusableError{Dir: dir, Reason: "the agent's state directory " + r.state + " is in it"}
	}
	all, err := r.clusters(ctx)
	if err != nil {
		return err // one that cannot be read may have it
	}
	for _, c := range all {
		own := c.Namespace == namespace && c.Name == name
		for _, has := range []string{r.cluster(c.Namespace, c.Name), c.Status.DataDirectory} {
			if has != "" && !own && (within(dir, has) || within(has, dir)) {
				return &restore.NotReusableError{Dir: dir, Reason: fmt.Sprintf("it is of cluster %s in namespace %s", c.Name, c.Namespace)}
			}
		}
	}
	return nil
}

// movable refuses what cannot be moved to where clusters are.
func (r *Runtime) movable(dir string) error {
	device := func(path string) (uint64, error) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return 0, fmt.Errorf("%s: its device cannot be told", path)
		}
		return st.Dev, nil
	}
	at, err := device(dir)
	if err != nil {
		return err
	}
	above, err := device(filepath.Dir(dir))
	if err != nil {
		return err
	}
	state, err := device(r.state)
	switch {
	case err != nil:
		return err
	case above != at:
		return &restore.NotReusableError{Dir: dir, Reason: "it is the root of a file system, and it would have to be moved"}
	case state != at:
		return &restore.NotReusableError{Dir: dir, Reason: "it is on another file system than " + r.state + ", to which it would have to be moved"}
	}
	return nil
}

// tablespacesBeside are the tablespaces that a cluster of this state directory had beside
// its data; empty for a directory from elsewhere, whose tablespaces may be another's, and
// stay where they are.
func (r *Runtime) tablespacesBeside(dir string) string {
	rel, err := filepath.Rel(filepath.Join(r.state, "clusters"), dir)
	if err != nil || len(strings.Split(rel, string(filepath.Separator))) != 3 || strings.HasPrefix(rel, "..") {
		return ""
	}
	return filepath.Join(filepath.Dir(dir), "tablespaces")
}

// restoreOver begins a restore over the directory that is to be the new cluster's own.
func (k *keeper) restoreOver(ctx context.Context, c *v1alpha1.Cluster, s *server) error {
	spec := c.Spec.Restore
	target, err := agent.TargetOf(spec)
	if err != nil {
		return err
	}
	p, err := k.r.Plan(ctx, runtimes.Source{Namespace: spec.SourceNamespace, Cluster: spec.SourceCluster, Lineage: spec.SourceLineage}, target)
	if err == nil {
		_, err = k.takeOver(ctx, p, s, spec.Delta)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return errors.Join(err, k.phase(ctx, v1alpha1.ClusterFailed, agent.RestoreReason(err), err.Error()))
	}
	return k.make(ctx, c, s)
}

// settles is how long a server may take to end that the agent ran when it was killed.
const settles = 10 * time.Second

// takeOver moves a directory to where the new cluster is recovered, unless that was done:
// then what is there is gone on with. Without an error what is at tmp can be given to Fetch
// with a Delta; ok is false if nothing there is of use, and it is begun anew.
func (k *keeper) takeOver(ctx context.Context, p *restore.Plan, s *server, dir string) (ok bool, err error) {
	tmp, spaces := filepath.Join(s.dir, "data.new"), filepath.Join(s.dir, "tablespaces")
	_, err = os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, terr := os.Lstat(tmp); terr != nil {
			return false, &restore.NotReusableError{Dir: dir, Reason: "it is not there"}
		}
		err = settled(ctx, func() error { return p.CheckReuse(tmp, s.uid) })
		var no *restore.NotReusableError
		if errors.As(err, &no) && !no.Running {
			return false, nil // the disk lost what made it one
		}
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	if err := settled(ctx, func() error { return k.r.CheckDelta(ctx, p, k.namespace, k.name, dir) }); err != nil {
		return false, err
	}
	if dir == tmp {
		return true, nil
	}
	if err := os.RemoveAll(tmp); err != nil {
		return false, err
	}
	if beside := k.r.tablespacesBeside(dir); beside != spaces {
		if err := os.RemoveAll(spaces); err != nil {
			return false, err
		}
		if beside != "" {
			if err := os.Rename(beside, spaces); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
		}
	}
	return true, os.Rename(dir, tmp)
}

// settled waits while a server runs that may be about to end.
func settled(ctx context.Context, check func() error) error {
	for left := settles; ; left -= 200 * time.Millisecond {
		err := check()
		var no *restore.NotReusableError
		if !errors.As(err, &no) || !no.Running || left <= 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// deltaNote tells people what was saved.
func deltaNote(dir string, d *restore.Delta) string {
	return fmt.Sprintf("%s of %s were right; %s were fetched, and %s written", v1alpha1.FormatSize(d.Kept), dir, v1alpha1.FormatSize(d.Fetched), v1alpha1.FormatSize(d.Written))
}
