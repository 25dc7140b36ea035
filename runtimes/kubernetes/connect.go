// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// superuser is the name and the password of the one that a cluster's Secret has.
func (r *Runtime) superuser(ctx context.Context, c *v1alpha1.Cluster) (user, password string, err error) {
	var s corev1.Secret
	if err := r.api.get(ctx, &s, of(c.Namespace, "secrets", names.SuperuserSecret(c.Name)), nil); err != nil {
		return "", "", fmt.Errorf("read the password of the superuser: %w", err)
	}
	user, password = string(s.Data[names.KeyUsername]), string(s.Data[names.KeyPassword])
	if user == "" || password == "" {
		return "", "", fmt.Errorf("secret %s/%s has no %s and %s", c.Namespace, s.Name, names.KeyUsername, names.KeyPassword)
	}
	return user, password, nil
}

func (r *Runtime) tunnel(ctx context.Context, c *v1alpha1.Cluster) (tunnel, error) {
	pod, err := r.primary(ctx, c.Namespace, c.Name)
	if err != nil {
		return tunnel{}, err
	}
	return tunnel{r, pod.Namespace, pod.Name, names.Port}, nil
}

// Admin connects to the primary as the superuser, through the API server.
func (r *Runtime) Admin(ctx context.Context, c *v1alpha1.Cluster, database string) (*pgx.Conn, error) {
	user, password, err := r.superuser(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", c.Name, err)
	}
	t, err := r.tunnel(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", c.Name, err)
	}
	// The way to the pod is TLS already, and ends beside the server.
	info, err := client.With("", [2]string{"host", "127.0.0.1"}, [2]string{"port", strconv.Itoa(names.Port)},
		[2]string{"user", user}, [2]string{"password", password}, [2]string{"dbname", database}, [2]string{"sslmode", "disable"})
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", c.Name, err)
	}
	config, err := client.Config(info)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", c.Name, err)
	}
	config.RuntimeParams["application_name"] = "kbcli"
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return t.Dial(ctx) }
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", c.Name, err)
	}
	return conn, nil
}

// Psql is psql on this machine, by a socket that this process listens on and whose
// connections it carries to the primary. It has to live on until psql ends, and then
// Release takes the socket away.
func (r *Runtime) Psql(ctx context.Context, c *v1alpha1.Cluster, user, database string) (runtimes.Command, error) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		return runtimes.Command{}, &NoPsqlError{Namespace: c.Namespace, Cluster: c.Name}
	}
	command := runtimes.Command{Path: psql}
	if user == "" {
		var password string
		if user, password, err = r.superuser(ctx, c); err != nil {
			return runtimes.Command{}, err
		}
		command.Env = []string{"PGPASSWORD=" + password}
	}
	t, err := r.tunnel(ctx, c)
	if err != nil {
		return runtimes.Command{}, err
	}
	dir, release, err := r.listen(context.WithoutCancel(ctx), t)
	if err != nil {
		return runtimes.Command{}, err
	}
	command.Args = []string{"-h", dir, "-p", strconv.Itoa(names.Port), "-U", user, "-d", database}
	command.Release = release
	return command, nil
}

// NoPsqlError says that psql is not on this machine.
type NoPsqlError struct{ Namespace, Cluster string }

func (e *NoPsqlError) Error() string { return "psql is not installed on this machine" }

// Command opens psql in the pod instead.
func (e *NoPsqlError) Command() string {
	return fmt.Sprintf("kubectl exec -it -n %s svc/%s -c %s -- psql -U postgres", e.Namespace, names.Service(e.Cluster), names.ContainerPostgreSQL)
}

// listen makes a socket that leads to t, in a directory of its own.
func (r *Runtime) listen(ctx context.Context, t tunnel) (dir string, release func(), err error) {
	if dir, err = os.MkdirTemp("", "kbcli-"); err != nil { // 0700
		return "", nil, fmt.Errorf("make a socket for psql: %w", err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(names.Port)))
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("make a socket for psql: %w", err), os.RemoveAll(dir))
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			near, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				if err := carry(ctx, t, near); err != nil {
					r.log.Warn("the way to the server is gone", "error", err)
				}
			}()
		}
	}()
	return dir, func() {
		cancel()
		_ = l.Close() // nobody is left who could want it
		wg.Wait()
		_ = os.RemoveAll(dir)
	}, nil
}

// carry connects near with the server until one of them ends, or ctx.
func carry(ctx context.Context, t tunnel, near net.Conn) error {
	defer near.Close()
	far, err := t.Dial(ctx)
	if err != nil {
		return err
	}
	defer far.Close()
	done := make(chan error, 2)
	go func() {
		_, err := io.Copy(far, near)
		done <- err
	}()
	go func() {
		_, err := io.Copy(near, far)
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return nil
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}
