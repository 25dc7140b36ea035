// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/kbcli/kbcli/internal/childproc"
)

var control = sync.OnceValues(startControl)

// Control is an API server with its etcd and nothing else: objects are stored, validated,
// watched and guarded by RBAC, but nobody acts on them: no controller, no garbage
// collection, no pod runs. All tests of a test binary share one; make a namespace each.
// It is ready in about four seconds, needs 330 MB, starts empty, and ends with the test
// process.
func Control(t testing.TB) *Cluster {
	t.Helper()
	c, err := control()
	if err != nil {
		t.Fatalf("testkube: %v", err)
	}
	return c
}

func startControl() (*Cluster, error) {
	parts, err := Parts(os.Stderr)
	if err != nil {
		return nil, err
	}
	// Between the choice of a port and its use somebody else may take it.
	for tries := 1; ; tries++ {
		c, err := tryControl(parts)
		if err == nil || tries == 5 {
			return c, err
		}
	}
}

// controlPlan is what the keeper is to start.
type controlPlan struct {
	Parts   string
	Etcd    string // URL
	APIPort string
}

func tryControl(parts string) (*Cluster, error) {
	dir, err := os.MkdirTemp("/tmp", "kbcontrol-")
	if err != nil {
		return nil, err
	}
	etcdPort, err := freePort()
	if err != nil {
		return nil, err
	}
	apiPort, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, "log"), 0o755); err != nil {
		return nil, err
	}
	keys := credentials{filepath.Join(dir, "keys")}
	if err := keys.write([]net.IP{net.IPv4(127, 0, 0, 1), serviceIP}, accounts); err != nil {
		return nil, err
	}
	c, err := newCluster(dir, parts, keys, "https://127.0.0.1:"+apiPort)
	if err != nil {
		return nil, err
	}
	plan := controlPlan{Parts: parts, Etcd: "http://127.0.0.1:" + etcdPort, APIPort: apiPort}
	if err := writeJSON(filepath.Join(dir, "control.json"), plan); err != nil {
		return nil, err
	}
	keeper, err := roleCommand("control", dir)
	if err != nil {
		return nil, err
	}
	exited, err := childproc.Start(keeper, syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	if err := c.waitReady(func() error { return failure(dir, exited) }, startLimit); err != nil {
		_ = keeper.Process.Signal(syscall.SIGTERM) // it removes dir; it may have ended
		return nil, fmt.Errorf("start an API server: %w", err)
	}
	return c, nil
}

// newCluster writes the administrator's kubeconfig.
func newCluster(dir, parts string, keys credentials, url string) (*Cluster, error) {
	c := &Cluster{Kubeconfig: filepath.Join(dir, "kubeconfig"), Host: url, CAFile: keys.path("ca.crt"), dir: dir, parts: parts}
	token, err := os.ReadFile(keys.path(adminUser + ".token"))
	if err != nil {
		return nil, err
	}
	c.Token = string(token)
	return c, keys.kubeconfig(c.Kubeconfig, url, adminUser)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// keepControl is the role control: it ends when told to or when a child ends.
func keepControl(dir string) (err error) {
	told := untilTold()
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var plan controlPlan
	if err := readJSON(filepath.Join(dir, "control.json"), &plan); err != nil {
		return err
	}
	etcd, err := startDaemon(dir, "etcd", filepath.Join(plan.Parts, "etcd"), etcdArgs(dir, plan.Etcd)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, etcd.kill()) }()
	args := apiServerArgs(credentials{filepath.Join(dir, "keys")}, plan.Etcd, "127.0.0.1", plan.APIPort)
	// Nobody makes the service accounts that it asks for.
	args = append(args, "--disable-admission-plugins=ServiceAccount")
	server, err := startDaemon(dir, "kube-apiserver", filepath.Join(plan.Parts, "kube-apiserver"), args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.kill()) }()
	select {
	case <-told:
		return nil
	case how := <-etcd.exited:
		etcd.exited <- how // for kill
		return fail(dir, told, fmt.Errorf("etcd ended: %w", errors.Join(how, errors.New("see its log"))))
	case how := <-server.exited:
		server.exited <- how
		return fail(dir, told, fmt.Errorf("the API server ended: %w", errors.Join(how, errors.New("see its log"))))
	}
}
