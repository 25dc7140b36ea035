// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/childproc"
)

// Options say what Up is to start. The zero value is one node with the images of kbcli
// and PostgreSQL.
type Options struct {
	Nodes    int       // 1 or 2; 0 is 1
	Bare     bool      // without the images of kbcli and PostgreSQL
	Images   []string  // docker archives to import besides
	Lasting  bool      // it outlives this process: somebody calls Down later
	Progress io.Writer // what a build says; nil is nowhere
}

// startLimit is for a machine that does a lot else.
const startLimit = 6 * time.Minute

// EnvNode names the directory of a node that is up already, and that tests of one's own
// making use instead: nobody waits for one to start.
const EnvNode = "KBCLI_TEST_NODE"

var node = sync.OnceValues(func() (*Cluster, error) {
	if dir := os.Getenv(EnvNode); dir != "" {
		return Open(dir)
	}
	return Up(Options{Progress: os.Stderr})
})

// Node is a whole Kubernetes with one node, with KbcliImage and PostgreSQLImage on it: pods run,
// claims of the storage class StorageClass get volumes, snapshots of SnapshotClass are
// taken, names resolve. All tests of a test binary share one; make a namespace each, and
// remove it, for the memory is one. It needs root, is ready in about fifteen seconds, and
// ends with the test process.
func Node(t testing.TB) *Cluster {
	t.Helper()
	c, err := node()
	if err != nil {
		t.Fatalf("testkube: %v", err)
	}
	return c
}

// nodePlan is what the processes of a node need to know. It lies in the run's directory,
// whose path is the same inside the node.
type nodePlan struct {
	Parts  string
	Images []string
	Nodes  []member
	Host   string // URL of the API server on the machine's loopback
	Init   int    // process 1 of the node, as the machine counts; written by the keeper
	Keeper int

	Lasting bool // nobody's child
}

const (
	planFile = "node.json"
	upFile   = "up" // exists when the node is ready
)

// Up starts a Kubernetes and returns when it is ready: nodes, storage, DNS, images. It
// needs root and the Debian packages that README.md of e2e/node names.
func Up(o Options) (*Cluster, error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if err := checkMachine(); err != nil {
		return nil, err
	}
	parts, err := Parts(o.Progress)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/tmp", runPrefix)
	if err != nil {
		return nil, err
	}
	c, exited, err := prepare(dir, parts, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a node: %w", err), os.RemoveAll(dir))
	}
	if err := c.untilUp(exited); err != nil {
		return nil, errors.Join(fmt.Errorf("start a node: %w", err), c.Down())
	}
	return c, nil
}

// runPrefix is how the directory of each run begins, in /tmp: paths of sockets are short.
const runPrefix = "kbnode-"

// prepare writes what a run needs and starts its keeper, to whom dir belongs from then on.
func prepare(dir, parts string, o Options) (c *Cluster, exited <-chan error, err error) {
	// Pods look into volumes that lie below.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, nil, err
	}
	for _, sub := range []string{"log", "parts", "disk", "images"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, nil, err
		}
	}
	// The listener is a socket of the machine's network; who has it need not be there.
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	images, err := archives(filepath.Join(dir, "images"), parts, o)
	if err != nil {
		return nil, nil, err
	}
	plan := nodePlan{Parts: parts, Images: images, Lasting: o.Lasting, Nodes: members(max(o.Nodes, 1)), Host: "https://" + l.Addr().String()}
	users := append([]account(nil), accounts...)
	for _, m := range plan.Nodes {
		users = append(users, nodeAccount(m.Name))
	}
	keys := credentials{filepath.Join(dir, "keys")}
	if err := keys.write([]net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(plan.Nodes[0].IP), serviceIP}, users); err != nil {
		return nil, nil, err
	}
	c, err = newCluster(dir, parts, keys, plan.Host)
	if err != nil {
		return nil, nil, err
	}
	if err := writeJSON(filepath.Join(dir, planFile), plan); err != nil {
		return nil, nil, err
	}
	keeper, err := roleCommand("node", dir)
	if err != nil {
		return nil, nil, err
	}
	socket, err := l.File()
	if err != nil {
		return nil, nil, err
	}
	defer socket.Close()
	keeper.ExtraFiles = []*os.File{socket}
	exited, err = startKeeper(keeper, o.Lasting)
	return c, exited, err
}

// untilUp returns when the node is ready, or with why it is not.
func (c *Cluster) untilUp(exited <-chan error) error {
	for deadline := time.Now().Add(startLimit); ; time.Sleep(100 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(c.dir, upFile)); err == nil {
			return nil
		}
		if err := failure(c.dir, exited); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready in %v\n%s", startLimit, logTails(c.dir))
		}
	}
}

// archives are the images of a run; those that change with the work tree lie in dir.
func archives(dir, parts string, o Options) ([]string, error) {
	pause, err := pauseArchive(parts, dir)
	if err != nil {
		return nil, err
	}
	if o.Bare {
		return append([]string{pause}, o.Images...), nil
	}
	kbcli, err := kbcliArchive(dir)
	if err != nil {
		return nil, err
	}
	postgresql, err := PostgreSQLArchive()
	if err != nil {
		return nil, err
	}
	return append([]string{pause, kbcli, postgresql}, o.Images...), nil
}

func startKeeper(cmd *exec.Cmd, lasting bool) (<-chan error, error) {
	if !lasting {
		return childproc.Start(cmd, syscall.SIGTERM)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	return exited, nil
}

// Running are the clusters on this machine that Up has started, by whomever.
func Running() ([]*Cluster, error) {
	dirs, err := filepath.Glob(filepath.Join("/tmp", runPrefix+"*"))
	if err != nil {
		return nil, err
	}
	var all []*Cluster
	for _, dir := range dirs {
		c, err := Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it ends or begins just now
		}
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// Open finds the cluster that Up started in a directory.
func Open(dir string) (*Cluster, error) {
	var plan nodePlan
	if err := readJSON(filepath.Join(dir, planFile), &plan); err != nil {
		return nil, err
	}
	return newCluster(dir, plan.Parts, credentials{filepath.Join(dir, "keys")}, plan.Host)
}

// Dir is where everything of this cluster lies: logs in log/, the kubeconfig.
func (c *Cluster) Dir() string { return c.dir }

// Lasting tells whether nobody but Down will end this cluster: it was started so, or what
// should have ended it was killed.
func (c *Cluster) Lasting() (bool, error) {
	plan, err := c.plan()
	if err != nil {
		return false, err
	}
	kept, err := processHas(plan.Keeper, c.dir)
	return plan.Lasting || !kept, err
}

// plan reads what the keeper has noted.
func (c *Cluster) plan() (nodePlan, error) {
	var plan nodePlan
	err := readJSON(filepath.Join(c.dir, planFile), &plan)
	return plan, err
}

// Down ends a cluster of Up and returns when nothing is left of it. If its keeper was
// killed, Down does the keeper's work. It tells what it could not remove.
func (c *Cluster) Down() error {
	plan, err := c.plan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if mine, err := processHas(plan.Keeper, c.dir); err != nil {
		return err
	} else if mine {
		if err := syscall.Kill(plan.Keeper, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("tell the keeper, process %d, to end: %w", plan.Keeper, err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			if mine, err := processHas(plan.Keeper, c.dir); err != nil || !mine {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("the keeper, process %d, does not end:\n%s", plan.Keeper, logTails(c.dir))
			}
		}
	}
	return removeRun(c.dir, plan)
}

// Partition cuts a node off the network, the API server and the other nodes included,
// until heal is called. What runs on it goes on running. node1 cannot be cut off: the API
// server is there.
func (c *Cluster) Partition(t testing.TB, name string) (heal func()) {
	t.Helper()
	set := func(state string) error {
		_, err := c.inside("ip", "link", "set", "to-"+name, state)
		return err
	}
	if err := set("down"); err != nil {
		t.Fatalf("cut off %s: %v", name, err)
	}
	healed := false
	heal = func() {
		if healed {
			return
		}
		healed = true
		if err := set("up"); err != nil {
			t.Errorf("connect %s again: %v", name, err)
		}
	}
	t.Cleanup(heal)
	return heal
}

// Command is a program that runs inside the node: among its processes, on its network,
// with its mounts.
func (c *Cluster) Command(program string, args ...string) (*exec.Cmd, error) {
	plan, err := c.plan()
	if err != nil {
		return nil, err
	}
	enter := []string{"-t", fmt.Sprint(plan.Init), "-m", "-n", "-p", "--", program}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Env = plainEnv(c.dir)
	return cmd, nil
}

func (c *Cluster) inside(program string, args ...string) (string, error) {
	cmd, err := c.Command(program, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %q: %w: %s", program, args, err, out)
	}
	return string(out), nil
}
