// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// run is one start of everything inside the node's namespaces.
type run struct {
	dir     string
	plan    nodePlan
	keys    credentials
	cluster *Cluster // by the address that is valid inside
	began   time.Time
	ended   chan error // says which part has ended that should not
}

// runNode is the role inside: it starts all parts of the node and stays while they run.
func runNode(dir string) error {
	r := &run{dir: dir, keys: credentials{filepath.Join(dir, "keys")}, began: time.Now(), ended: make(chan error, 1)}
	if err := readJSON(filepath.Join(dir, planFile), &r.plan); err != nil {
		return err
	}
	if err := mountInside(dir, r.plan); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := makeNetwork(r.plan.Nodes); err != nil {
		return fmt.Errorf("make the network: %w", err)
	}
	if err := r.start(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, upFile), []byte(time.Since(r.began).Round(100*time.Millisecond).String()+"\n"), 0o644); err != nil {
		return err
	}
	return <-r.ended
}

// part runs a program of the node dir/parts, or of the machine, for as long as the node
// runs. The node ends when it does.
func (r *run) part(m member, name string, args ...string) error {
	d, err := r.startPart(m, name, args...)
	if err != nil {
		return err
	}
	go func() {
		how := <-d.exited
		r.end(fmt.Errorf("%s ended: %w", d.name, errors.Join(how, errors.New("see its log"))))
	}()
	return nil
}

// restarted is a part that may end: it is started again.
func (r *run) restarted(m member, name string, args ...string) {
	go func() {
		for {
			d, err := r.startPart(m, name, args...)
			if err == nil {
				<-d.exited
			}
			time.Sleep(500 * time.Millisecond)
		}
	}()
}

// switched runs a program as part does, and ends it as a crash would while the file
// dir/name.off is there. dir/name.gone says that it has ended.
func (r *run) switched(m member, name string, args ...string) error {
	d, err := r.startPart(m, name, args...)
	if err != nil {
		return err
	}
	off, gone := switchOf(r.dir, name)
	tick := time.NewTicker(50 * time.Millisecond)
	go func() {
		for {
			select {
			case how := <-d.exited:
				r.end(fmt.Errorf("%s ended: %w", d.name, errors.Join(how, errors.New("see its log"))))
				return
			case <-tick.C:
			}
			if _, err := os.Stat(off); err != nil {
				continue
			}
			err := errors.Join(d.kill(), os.WriteFile(gone, nil, 0o600))
			for there := true; err == nil && there; time.Sleep(50 * time.Millisecond) {
				_, serr := os.Stat(off)
				there = serr == nil
			}
			if err == nil {
				err = os.Remove(gone)
			}
			if err == nil {
				d, err = r.startPart(m, name, args...)
			}
			if err != nil {
				r.end(fmt.Errorf("end and start %s: %w", name, err))
				return
			}
		}
	}()
	return nil
}

// end tells why the node ends; the first is heard.
func (r *run) end(why error) {
	select {
	case r.ended <- why:
	default:
	}
}

func (r *run) startPart(m member, name string, args ...string) (*daemon, error) {
	program := filepath.Join(r.dir, "parts", name)
	if _, err := os.Stat(program); err != nil {
		program = name // of the machine
	}
	log := name
	if m.Name != firstNode {
		log += "-" + m.Name
		args = append([]string{"--net=" + m.netns(), "--", program}, args...)
		program = "nsenter"
	}
	return startDaemon(r.dir, log, program, args...)
}

// start brings everything up in an order in which little waits.
func (r *run) start() error {
	first := r.plan.Nodes[0]
	url := "https://" + net.JoinHostPort(first.IP, apiPort)
	users := append([]account(nil), accounts...)
	for _, m := range r.plan.Nodes {
		users = append(users, nodeAccount(m.Name))
	}
	for _, u := range users {
		if err := r.keys.kubeconfig(r.kubeconfig(u.name), url, u.name); err != nil {
			return err
		}
	}
	token, err := os.ReadFile(r.keys.path(adminUser + ".token"))
	if err != nil {
		return err
	}
	r.cluster = &Cluster{
		Host: url, Kubeconfig: r.kubeconfig(adminUser), CAFile: r.keys.path("ca.crt"), Token: string(token),
		dir: r.dir, parts: filepath.Join(r.dir, "parts"),
	}
	if err := r.part(first, "etcd", etcdArgs(filepath.Join(r.dir, "disk"), etcdURL)...); err != nil {
		return err
	}
	if err := r.switched(first, apiServer, apiServerArgs(r.keys, etcdURL, first.IP, apiPort)...); err != nil {
		return err
	}
	imports := make(chan error, len(r.plan.Nodes))
	for _, m := range r.plan.Nodes {
		if err := r.startContainerd(m); err != nil {
			return err
		}
		go func() { imports <- r.importImages(m) }()
	}
	if err := r.cluster.waitReady(r.failed, startLimit); err != nil {
		return fmt.Errorf("start an API server: %w", err)
	}
	r.note("the API server is ready")
	if err := r.forward(net.JoinHostPort(first.IP, apiPort)); err != nil {
		return err
	}
	if err := r.startControllers(first); err != nil {
		return err
	}
	for _, m := range r.plan.Nodes {
		if err := r.startKubelet(m); err != nil {
			return err
		}
	}
	if err := r.startStorage(); err != nil {
		return err
	}
	for range r.plan.Nodes {
		if err := <-imports; err != nil {
			return err
		}
	}
	r.note("images are imported")
	return r.untilNodesReady()
}

func (r *run) kubeconfig(user string) string { return r.keys.path(user + ".kubeconfig") }

// note keeps how long what took.
func (r *run) note(what string) {
	fmt.Printf("%5.1f s  %s\n", time.Since(r.began).Seconds(), what)
}

// failed tells whether a part has ended.
func (r *run) failed() error {
	select {
	case how := <-r.ended:
		return how
	default:
		return nil
	}
}

// until asks again and again, and gives up when a part has ended or the time is over.
func (r *run) until(what string, f func() error) error {
	for deadline := r.began.Add(startLimit); ; {
		err := f()
		if err == nil {
			r.note(what)
			return nil
		}
		if err := r.failed(); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
		if time.Now().After(deadline) {
			return fmt.Errorf("until %s: %w", what, err)
		}
	}
}

func (r *run) untilNodesReady() error {
	return r.until("the nodes are ready", func() error {
		for _, m := range r.plan.Nodes {
			if _, err := r.cluster.Try("", "wait", "--for=condition=Ready", "node/"+m.Name, "--timeout=5s"); err != nil {
				return err
			}
			out, err := r.cluster.Try("", "get", "csinode", m.Name, "-o", "jsonpath={.spec.drivers[*].name}")
			if err != nil {
				return err
			}
			if !strings.Contains(out, driverName) {
				return fmt.Errorf("node %s has the storage drivers %q", m.Name, out)
			}
		}
		// each namespace gets one, and a pod needs it
		_, err := r.cluster.Try("", "get", "serviceaccount", "default")
		return err
	})
}

// forward gives the machine the API server: what arrives at the inherited listener, which
// is a socket of the machine's network, goes to address, which is in the node's.
func (r *run) forward(address string) error {
	f := os.NewFile(listenerFile, "listener")
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				r.ended <- fmt.Errorf("accept: %w", err)
				return
			}
			go func() {
				to, err := net.Dial("tcp", address)
				if err != nil {
					_ = from.Close() // the client sees it
					return
				}
				go pipe(from, to)
				pipe(to, from)
			}()
		}
	}()
	return nil
}

// pipe copies until one side has no more, and says so to the other.
func pipe(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if c, ok := to.(*net.TCPConn); ok && err == nil && c.CloseWrite() == nil {
		return
	}
	_ = from.Close()
	_ = to.Close()
}

// makeMountsPrivate keeps what is mounted from here on from the machine.
func makeMountsPrivate() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// pods' mounts have to reach the kubelet and the other way round: shared among us
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "")
}

// kubeletSysctls are those that the kubelet writes if they differ. They are the whole
// machine's, so it is shown the values it wants.
var kubeletSysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// diskSize is the most that all volumes and images may hold; it is sparse.
const diskSize = 32 << 30

// mountInside gives the node a disk, and hides where the kubelet and its plugins write
// besides: device plugins, CNI's and the pods' logs have fixed places.
func mountInside(dir string, plan nodePlan) error {
	// a cache may lie where things are hidden below
	if err := bind(plan.Parts, filepath.Join(dir, "parts")); err != nil {
		return err
	}
	for i, image := range plan.Images {
		at := imported(dir, i)
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			return err
		}
		if err := bind(image, at); err != nil {
			return err
		}
	}
	sysctls := filepath.Join(dir, "sysctl")
	if err := os.Mkdir(sysctls, 0o755); err != nil {
		return err
	}
	for name, value := range kubeletSysctls {
		file := filepath.Join(sysctls, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := bind(file, filepath.Join("/proc/sys", name)); err != nil {
			return err
		}
	}
	for _, hidden := range []string{"/run", "/var/lib", "/var/log"} {
		if err := syscall.Mount("tmpfs", hidden, "tmpfs", 0, "mode=755,size=512m"); err != nil {
			return fmt.Errorf("hide %s: %w", hidden, err)
		}
	}
	for _, d := range []string{"/run/netns", "/run/lock"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	image, disk := filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, diskSize); err != nil {
		return err
	}
	if err := command("mkfs.xfs", "-q", "-m", "reflink=1", image); err != nil {
		return err
	}
	return command("mount", "-o", "loop", image, disk)
}

// imported is where the node sees image number i.
func imported(dir string, i int) string { return filepath.Join(dir, "images", fmt.Sprint(i)) }

func bind(from, to string) error {
	if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, to, err)
	}
	return nil
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
