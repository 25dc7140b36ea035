// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// build makes the package of a version, and returns its file.
func build(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "kbcli")
	run(t, "../../deploy/build.sh", binary, version)
	run(t, filepath.Join("..", "..", "deploy", "deb", "build.sh"), version, binary, dir)
	debs, err := filepath.Glob(filepath.Join(dir, "kbcli_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	return debs[0]
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// TestPackageIsReproducible builds a package twice.
func TestPackageIsReproducible(t *testing.T) {
	a, err := os.ReadFile(build(t, "v0.1.0"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(build(t, "v0.1.0"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the same sources made two packages that differ")
	}
}

// TestLife is the package's life on a machine: installed, upgraded while it works, the
// machine switched off and on, removed.
func TestLife(t *testing.T) {
	first, second := build(t, "v0.1.0"), build(t, "v0.2.0")
	h := boot(t)
	h.put(first, "/srv/first.deb")
	h.put(second, "/srv/second.deb")
	const server = "head -n 1 /var/lib/kubeblocks/clusters/default/my-pg/data/postmaster.pid"
	const agent = "systemctl show -P MainPID kbcli-agent.service"

	h.run("dpkg -i /srv/first.deb")
	h.expect("kbcli version", "kbcli: v0.1.0\nagent: v0.1.0")
	h.expect("systemctl is-enabled kbcli-agent.service", "enabled")
	h.expect("kbcli agent status", "systemd, unit kbcli-agent.service")
	h.expect("kbcli cluster create my-pg --wait", "Cluster my-pg created")
	h.run("kbcli cluster edit-backup-policy my-pg-postgresql-backup-policy --set schedule.logfile.enable=true")
	h.run("kbcli cluster backup my-pg --name b1 --wait")
	h.run("kbcli cluster connect my-pg -- -qc 'create table t (i int); insert into t values (1)'")
	postmaster, main := h.run(server), h.run(agent)

	// upgraded while it works
	h.run("dpkg -i /srv/second.deb")
	h.awaitRun("kbcli version", "kbcli: v0.2.0\nagent: v0.2.0")
	if got := h.run(agent); got != main {
		t.Errorf("the agent was process %s, and is %s", main, got)
	}
	h.expect("systemctl status kbcli-agent.service", "version v0.2.0")

	// killed, and stopped and started by the administrator: the server never notices
	h.run("kill -9 $(cat /var/lib/kubeblocks/agent.pid)")
	h.awaitRun("kbcli agent status", "v0.2.0")
	h.run("systemctl restart kbcli-agent.service")
	h.run("kbcli agent stop")
	h.expect("systemctl is-active kbcli-agent.service || true", "inactive")
	h.expect("kbcli agent restart", "Agent restarted")
	h.expect("systemctl is-active kbcli-agent.service", "active")
	if got := h.run(server); got != postmaster {
		t.Errorf("the server was process %s, and is %s", postmaster, got)
	}

	// another state directory is an instance of the package's template
	h.run("kbcli agent restart --state-dir '/srv/other-one/a b'")
	h.expect("kbcli agent status --state-dir '/srv/other-one/a b'", `kbcli-agent@srv-other\x2done-a\x20b.service`)
	h.expect("ls -A /etc/systemd/system/multi-user.target.wants", `kbcli-agent@srv-other\x2done-a\x20b.service`)

	// the power fails
	h.run("kbcli cluster connect my-pg -- -qc 'insert into t values (2)'")
	h.powerCut()
	h.awaitRun("kbcli cluster connect my-pg -- -qtAc 'select count(*) from t'", "2")
	h.expect("kbcli agent status", "systemd, unit kbcli-agent.service")
	h.awaitRun("kbcli agent status --state-dir '/srv/other-one/a b'", "v0.2.0")
	h.awaitRun("kbcli cluster describe my-pg", "Running")
	h.run("kbcli cluster backup my-pg --name b2 --wait")

	// removed: the server goes on, and nothing is lost
	postmaster = h.run(server)
	h.expect("dpkg -r kbcli", "clusters and backups stay in /var/lib/kubeblocks")
	h.expect("pgrep -x kbcli || echo none", "none")
	h.run("kill -0 " + postmaster)
	h.expect("dpkg -P kbcli", "clusters and backups stay in /var/lib/kubeblocks")
	h.run("test -d /var/lib/kubeblocks/clusters/default/my-pg/data && kill -0 " + postmaster)

	// and found again
	h.run("dpkg -i /srv/second.deb")
	h.awaitRun("kbcli cluster list-backup", "b2")
	h.awaitRun("kbcli cluster connect my-pg -- -qtAc 'select count(*) from t'", "2")
	if got := h.run(server); got != postmaster {
		t.Errorf("the server was process %s, and is %s", postmaster, got)
	}
}
