// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/internal/childproc"
)

// kbcli is the program of this repository, with an agent of its own.
type kbcli struct {
	b      *bench
	agent  *exec.Cmd
	exited chan error
	log    *os.File
	s      *server
	s3     *bucket // nil: a directory
}

func (k *kbcli) name() string { return "kbcli" }

func (k *kbcli) settings() string {
	return "its defaults: zstd level 1, a worker a core, WAL streamed and indexed, tails each second"
}

func (k *kbcli) archiveCommand() string { return "" }

func (k *kbcli) run(ctx context.Context, args ...string) error {
	_, err := finish(k.b.command(ctx, true, k.b.kbcli, args...), nil)
	return err
}

// prepare starts the agent.
func (k *kbcli) prepare(ctx context.Context, s *server) error {
	k.s = s
	if err := os.MkdirAll(filepath.Join(k.b.work, "state"), 0o755); err != nil {
		return err
	}
	var err error
	if k.log, err = os.Create(filepath.Join(k.b.work, "agent.log")); err != nil {
		return err
	}
	k.agent = k.b.command(context.Background(), true, k.b.kbcli, "agent", "run")
	k.agent.Stdout, k.agent.Stderr = k.log, k.log
	if k.exited, err = childproc.Start(k.agent, syscall.SIGTERM); err != nil || k.s3 == nil {
		return err
	}
	c := k.b.command(ctx, true, k.b.kbcli, "backuprepo", "create", "s3", "--default", "--provider", "s3", "--bucket", k.s3.name,
		"--endpoint", k.s3.Endpoint, "--region", k.s3.Region, "--ca-file", k.s3.CAFile)
	c.Env = append(c.Env, "AWS_ACCESS_KEY_ID="+k.s3.AccessKey, "AWS_SECRET_ACCESS_KEY="+k.s3.SecretKey)
	_, err = finish(c, nil)
	return err
}

// begin protects the server.
func (k *kbcli) begin(ctx context.Context) error {
	if err := k.run(ctx, "cluster", "attach", "src", "--data-directory", k.s.data,
		"--connect", fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", k.s.socket, k.s.port), "--enable-archiving"); err != nil {
		log, _ := os.ReadFile(k.log.Name()) // more words, if there are any
		return fmt.Errorf("%w\n%s", err, log)
	}
	return nil
}

func (k *kbcli) meter() *meter { return &meter{k.s, k.agent.Process.Pid} }

func (k *kbcli) backups() string {
	if k.s3 != nil {
		return filepath.Join(k.s3.dir(), "lineages")
	}
	return filepath.Join(k.b.work, "state", "repository", "lineages")
}

func (k *kbcli) backup(ctx context.Context, name string, incremental bool) (usage, error) {
	kind := "datafile"
	if incremental {
		kind = "incremental"
	}
	u, err := k.meter().measure(func(watch func(int)) error {
		c := k.b.command(ctx, true, k.b.kbcli, "cluster", "backup", "src", "--name", name, "--type", kind, "--wait")
		var errs bytes.Buffer
		c.Stderr = &errs
		if err := c.Run(); err != nil {
			return fmt.Errorf("%w: %s", err, errs.Bytes())
		}
		if strings.Contains(errs.String(), "everything was read") {
			return errors.New(errs.String())
		}
		return nil
	})
	if err != nil {
		return u, err
	}
	dirs, err := filepath.Glob(filepath.Join(k.backups(), "src-*", "backup", name))
	if err != nil || len(dirs) != 1 {
		return u, fmt.Errorf("the files of backup %s: %q: %w", name, dirs, err)
	}
	u.Stored, u.Objects, err = sizeOf(dirs[0])
	return u, err
}

func (k *kbcli) restore(ctx context.Context, name string) (usage, error) {
	return k.bring(ctx, name, "--backup", name)
}

func (k *kbcli) delta(ctx context.Context, name, dir string) (usage, error) {
	return k.bring(ctx, name, "--backup", name, "--delta", dir, "--auto-approve")
}

// restoreTo brings back a moment.
func (k *kbcli) restoreTo(ctx context.Context, name, _, at string) (usage, error) {
	return k.bring(ctx, name, "--source-cluster", "src", "--restore-to-time", at)
}

// bring makes a cluster. Its files are there when the phase of its object changes.
func (k *kbcli) bring(ctx context.Context, name string, target ...string) (usage, error) {
	var files float64
	u, err := k.meter().measure(func(watch func(int)) error {
		began := time.Now()
		done, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for {
				select {
				case <-done:
					return
				case <-time.After(20 * time.Millisecond):
				}
				if files == 0 && k.recovering("r-"+name) {
					files = time.Since(began).Seconds()
				}
			}
		}()
		err := k.run(ctx, append([]string{"cluster", "restore", "r-" + name, "--wait"}, target...)...)
		close(done)
		<-ended
		return err
	})
	if err != nil {
		return u, err
	}
	u.Serving = u.Wall
	if u.Wall = files; files == 0 {
		return u, errors.New("the end of fetching was not seen")
	}
	return u, nil
}

// recovering tells whether a restore has all its files, as its object says.
func (k *kbcli) recovering(cluster string) bool {
	b, err := os.ReadFile(filepath.Join(k.b.work, "state", "objects", "clusters", "default", cluster+".yaml"))
	return err == nil && (bytes.Contains(b, []byte("phase: Recovering")) || bytes.Contains(b, []byte("phase: Completed")))
}

func (k *kbcli) drop(ctx context.Context, name string) error {
	return k.run(ctx, "cluster", "delete", "r-"+name, "--auto-approve")
}

func (k *kbcli) forget(ctx context.Context, name string) error {
	return k.run(ctx, "cluster", "delete-backup", "src", "--name", name, "--force", "--auto-approve")
}

func (k *kbcli) end(ctx context.Context) error {
	err := k.run(ctx, "cluster", "detach", "src", "--auto-approve")
	return errors.Join(err, k.agent.Process.Signal(syscall.SIGTERM), <-k.exited, k.log.Close(), os.RemoveAll(filepath.Join(k.b.work, "state")))
}
