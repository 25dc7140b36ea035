// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

const (
	// StorageClass makes volumes of at least 300 MiB that grow, are cloned and snapshotted.
	StorageClass = "test"
	// SnapshotClass makes snapshots of them.
	SnapshotClass = "test"

	driverName = "csi.kbcli.test"
	pauseImage = "kbcli.test/pause:1"
)

//go:embed config
var config embed.FS

// settings are what the files of config are filled with.
type settings struct {
	member
	Dir, Data, CgroupRoot, Pause string // Data is the node's own part of the disk
	Admin, ProxyConfig           string // kubeconfigs
	DNS, PodCIDR, Driver         string
}

func (r *run) settings(m member) settings {
	return settings{
		member: m, Dir: filepath.Join(r.dir, m.Name), Data: filepath.Join(r.dir, "disk", m.Name),
		CgroupRoot: "/" + cgroupName(r.dir) + "/" + m.Name, Pause: pauseImage,
		DNS: r.plan.Nodes[0].IP, PodCIDR: podCIDR, Driver: driverName,
		Admin: r.kubeconfig(adminUser), ProxyConfig: r.kubeconfig(proxyUser),
	}
}

// fill writes a file of config into the directory of a node and returns its path.
func (r *run) fill(m member, name string) (string, error) {
	text, err := template.ParseFS(config, "config/"+name)
	if err != nil {
		return "", err
	}
	file := filepath.Join(r.dir, m.Name, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	if err := text.Option("missingkey=error").Execute(f, r.settings(m)); err != nil {
		f.Close()
		return "", err
	}
	return file, f.Close()
}

func (r *run) containerdSocket(m member) string {
	return filepath.Join(r.dir, m.Name, "containerd.sock")
}

func (r *run) startContainerd(m member) error {
	if err := os.MkdirAll(filepath.Join(r.dir, m.Name, "cni"), 0o755); err != nil {
		return err
	}
	network, err := r.fill(m, "pods.conflist")
	if err != nil {
		return err
	}
	if err := os.Rename(network, filepath.Join(r.dir, m.Name, "cni", "10-pods.conflist")); err != nil {
		return err
	}
	file, err := r.fill(m, "containerd.toml")
	if err != nil {
		return err
	}
	return r.part(m, "containerd", "--config", file)
}

// importImages gives a node the images that pods may name.
func (r *run) importImages(m member) error {
	socket := r.containerdSocket(m)
	if err := r.until("containerd answers on "+m.Name, func() error { return command("ctr", "-a", socket, "version") }); err != nil {
		return err
	}
	for i := range r.plan.Images {
		if err := command("ctr", "-a", socket, "-n", "k8s.io", "images", "import", imported(r.dir, i)); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) startControllers(first member) error {
	// a token and no certificate: the two ask the API server who their own callers are
	own := func(user string) []string {
		file := r.kubeconfig(user)
		return []string{
			"--kubeconfig=" + file, "--authentication-kubeconfig=" + file, "--authorization-kubeconfig=" + file,
			"--leader-elect=false", "--bind-address=127.0.0.1", "--v=1",
		}
	}
	err := r.part(first, "kube-controller-manager", append(own(controllerManagerUser),
		"--service-account-private-key-file="+r.keys.path("sa.key"), "--root-ca-file="+r.keys.path("ca.crt"),
		"--use-service-account-credentials=true",
		"--controllers=*,-bootstrapsigner,-tokencleaner,-nodeipam,-cloud-node-lifecycle,-service-lb-controller,-route",
		"--flex-volume-plugin-dir="+filepath.Join(r.dir, "flex"),
		// failover is waited for in tests
		"--node-monitor-grace-period=20s")...)
	if err != nil {
		return err
	}
	if err := r.part(first, "kube-scheduler", own(schedulerUser)...); err != nil {
		return err
	}
	names, err := r.fill(first, "Corefile")
	if err != nil {
		return err
	}
	return r.part(first, "dns", "-conf", names)
}

func (r *run) startKubelet(m member) error {
	file, err := r.fill(m, "kubelet.yaml")
	if err != nil {
		return err
	}
	if _, err := r.fill(m, "resolv.conf"); err != nil {
		return err
	}
	data := r.settings(m).Data
	err = r.part(m, "kubelet", "--config="+file, "--kubeconfig="+r.kubeconfig(m.Name), "--root-dir="+filepath.Join(data, "kubelet"),
		"--cert-dir="+filepath.Join(data, "pki"), "--hostname-override="+m.Name, "--node-ip="+m.IP, "--v=1")
	if err != nil {
		return err
	}
	file, err = r.fill(m, "kube-proxy.yaml")
	if err != nil {
		return err
	}
	return r.part(m, "kube-proxy", "--config="+file, "--hostname-override="+m.Name, "--v=1")
}

// startStorage starts the driver on each node, and what makes snapshots.
func (r *run) startStorage() error {
	first := r.plan.Nodes[0]
	admin := "--kubeconfig=" + r.kubeconfig(adminUser)
	if _, err := r.cluster.Try("", "apply", "-f", filepath.Join(r.dir, "parts", "crds")); err != nil {
		return err
	}
	// the run's name is in the path of each volume: loop devices are known by it
	images := filepath.Join(r.dir, "disk", filepath.Base(r.dir))
	if err := os.MkdirAll(images, 0o755); err != nil {
		return err
	}
	for _, m := range r.plan.Nodes {
		err := r.part(m, "csi", "-name", driverName, "-node", m.Name, "-dir", images, "-kubelet-root", filepath.Join(r.settings(m).Data, "kubelet"),
			"-kubeconfig", r.kubeconfig(adminUser), fmt.Sprintf("-control=%t", m == first))
		if err != nil {
			return err
		}
	}
	if err := r.part(first, "snapshot-controller", admin, "--leader-election=false", "--v=2"); err != nil {
		return err
	}
	socket := filepath.Join(r.settings(first).Data, "kubelet", "plugins", driverName, "csi.sock")
	if err := r.until("the storage driver listens", func() error { _, err := os.Stat(socket); return err }); err != nil {
		return err
	}
	// it ends when the connection does, and wants to be started again
	r.restarted(first, "csi-snapshotter", admin, "--csi-address="+socket, "--leader-election=false", "--v=2")
	classes, err := r.fill(first, "storage.yaml")
	if err != nil {
		return err
	}
	return r.until("the storage classes are there", func() error {
		_, err := r.cluster.Try("", "apply", "-f", classes)
		return err
	})
}

// needed are programs and the Debian packages that have them.
var needed = map[string]string{
	"containerd": "containerd", "ctr": "containerd", "runc": "runc", "iptables": "iptables", "conntrack": "conntrack",
	"mkfs.xfs": "xfsprogs", "xfs_growfs": "xfsprogs", "ip": "iproute2", "nsenter": "util-linux", "sysctl": "procps",
	"/usr/lib/cni/ptp": "containernetworking-plugins",
}

// checkMachine names what a node needs and this machine lacks.
func checkMachine() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("a node needs root")
	}
	var missing []string
	for program, from := range needed {
		found := false
		for _, dir := range []string{"", "/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
			if dir == "" && !strings.HasPrefix(program, "/") {
				_, err := exec.LookPath(program)
				found = found || err == nil
				continue
			}
			_, err := os.Stat(filepath.Join(dir, program))
			found = found || err == nil
		}
		if !found {
			missing = append(missing, program+" of the Debian package "+from)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("a node needs %s", strings.Join(missing, ", "))
	}
	return nil
}
