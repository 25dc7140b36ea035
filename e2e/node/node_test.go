// SPDX-License-Identifier: Apache-2.0

package main

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/internal/testkube"
)

//go:embed testdata
var testdata embed.FS

// space is a namespace of one cluster in which a test works.
type space struct {
	*testkube.Cluster
	t    *testing.T
	name string
}

func newSpace(t *testing.T, c *testkube.Cluster, name string) *space {
	c.Kubectl(t, "create", "namespace", name)
	// each namespace gets the account that its pods run as
	s := &space{c, t, name}
	s.until("the account default is there", func() bool { return s.try("get", "serviceaccount", "default") })
	return s
}

func (s *space) kubectl(args ...string) string {
	s.t.Helper()
	return s.Kubectl(s.t, append([]string{"--namespace", s.name}, args...)...)
}

func (s *space) try(args ...string) bool {
	_, err := s.Try("", append([]string{"--namespace", s.name}, args...)...)
	return err == nil
}

// apply makes the objects of a file of testdata, with NAME put in.
func (s *space) apply(file, name string) {
	s.t.Helper()
	text, err := testdata.ReadFile("testdata/" + file)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.Try(strings.ReplaceAll(string(text), "NAME", name), "--namespace", s.name, "apply", "-f", "-"); err != nil {
		s.t.Fatal(err)
	}
}

// wait is for a condition, at most three minutes; then the test says what is there.
func (s *space) wait(args ...string) {
	s.t.Helper()
	if _, err := s.Try("", append([]string{"--namespace", s.name, "wait", "--timeout=180s"}, args...)...); err != nil {
		s.t.Fatalf("%v\n%s\n%s", err, s.kubectl("get", "pods,pvc", "-o", "wide"), s.kubectl("get", "events"))
	}
}

func (s *space) until(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("not until now: %s", what)
		}
	}
}

// sql runs a query in a pod, of the server on host.
func (s *space) sql(pod, host, query string) string {
	s.t.Helper()
	return strings.TrimSpace(s.kubectl("exec", pod, "--", "psql", "-XAt", "-v", "ON_ERROR_STOP=1", "-h", host, "-U", "postgres", "-c", query))
}

func (s *space) number(pod, host, query string) int {
	s.t.Helper()
	n, err := strconv.Atoi(s.sql(pod, host, query))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// TestNode is one story, for the node is the expensive part.
func TestNode(t *testing.T) {
	before := machine(t)
	c, err := testkube.Up(testkube.Options{Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Down(); err != nil {
			t.Error(err)
		}
		left, err := testkube.Leftovers(c.Dir())
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 {
			t.Errorf("after down there are still\n%s", strings.Join(left, "\n"))
		}
		if diff := cmp.Diff(before, machine(t)); diff != "" {
			t.Errorf("the machine is not what it was:\n%s", diff)
		}
	}()
	t.Run("volumes", func(t *testing.T) { testVolumes(newSpace(t, c, "volumes")) })
	t.Run("kbcli", func(t *testing.T) { testKbcli(newSpace(t, c, "kbcli")) })
	t.Run("patroni", func(t *testing.T) { testPatroni(newSpace(t, c, "patroni")) })
}

// testVolumes: a server writes, its volume is snapshotted meanwhile, a second server starts
// on the snapshot and recovers, a third on a clone; the first volume grows under load.
func testVolumes(s *space) {
	s.apply("server.yaml", "")
	s.apply("pod.yaml", "first")
	s.wait("pod/first", "--for=condition=Ready")
	s.sql("first", "127.0.0.1", "create table t (id bigserial primary key, pad text)")

	written := make(chan error, 1)
	go func() {
		_, err := s.Try("", "--namespace", s.name, "exec", "first", "--", "bash", "-c",
			`for i in $(seq 200); do psql -qX -h 127.0.0.1 -U postgres -c "insert into t (pad) select repeat('x', 100) from generate_series(1, 50)" || exit 1; done`)
		written <- err
	}()
	s.until("rows are written", func() bool { return s.number("first", "127.0.0.1", "select count(*) from t") > 500 })
	least := s.number("first", "127.0.0.1", "select count(*) from t")
	s.apply("snapshot.yaml", "")
	s.wait("volumesnapshot/moment", "--for=jsonpath={.status.readyToUse}=true")
	most := s.number("first", "127.0.0.1", "select count(*) from t")
	s.kubectl("patch", "pvc", "first", "--patch", `{"spec":{"resources":{"requests":{"storage":"600Mi"}}}}`)
	s.wait("pvc/first", "--for=jsonpath={.status.capacity.storage}=600Mi")
	if err := <-written; err != nil {
		s.t.Errorf("a write went wrong meanwhile: %v", err)
	}
	if mib := s.kubectl("exec", "first", "--", "bash", "-c", "df --output=size -m /data | tail -1"); mustAtoi(s.t, mib) < 500 {
		s.t.Errorf("the volume of 600 MiB has a file system of %s", mib)
	}

	s.apply("restored.yaml", "")
	s.apply("pod.yaml", "restored")
	s.apply("pod.yaml", "cloned")
	s.wait("pod/restored", "pod/cloned", "--for=condition=Ready")
	got := s.number("restored", "127.0.0.1", "select count(*) from t")
	if got%50 != 0 || got < least || got > most {
		s.t.Errorf("the snapshot has %d rows, of transactions of 50; before it there were %d, after it %d", got, least, most)
	}
	if got := s.number("cloned", "127.0.0.1", "select count(*) from t"); got != 200*50 {
		s.t.Errorf("the clone has %d rows", got)
	}
	// names of a pod, and of a service: with its own address, translated on the node
	for _, host := range []string{"first.pg", "first.pg.volumes.svc.cluster.local", "first"} {
		if got := s.number("restored", host, "select count(*) from t"); got != 200*50 {
			s.t.Errorf("%s has %d rows", host, got)
		}
	}
}

// testKbcli: the image of kbcli runs kbcli, and not as root.
func testKbcli(s *space) {
	s.kubectl("run", "kbcli", "--image="+testkube.KbcliImage, "--image-pull-policy=Never", "--restart=Never",
		`--overrides={"spec":{"securityContext":{"runAsNonRoot":true,"runAsUser":65532}}}`, "--", "version")
	s.wait("pod/kbcli", "--for=jsonpath={.status.phase}=Succeeded")
	if out := s.kubectl("logs", "kbcli"); !strings.Contains(out, "test") {
		s.t.Errorf("kbcli version says %q", out)
	}
}

// testPatroni: one of two leads, and the other follows when it is gone.
func testPatroni(s *space) {
	s.apply("patroni.yaml", "")
	leader := func() string {
		out, err := s.Try("", "--namespace", s.name, "get", "pods", "-l", "role=master", "-o", "jsonpath={.items[*].metadata.name}")
		if err != nil {
			return ""
		}
		return out
	}
	s.until("one leads", func() bool { return leader() != "" })
	s.wait("pod/ha-0", "pod/ha-1", "--for=condition=Ready")
	first := leader()
	other := map[string]string{"ha-0": "ha-1", "ha-1": "ha-0"}[first]
	s.sql(first, "127.0.0.1", "create table t as select 1 as n")
	s.until("the other has the row", func() bool {
		return s.try("exec", other, "--", "psql", "-X", "-h", "127.0.0.1", "-U", "postgres", "-c", "select n from t")
	})
	s.kubectl("delete", "pod", first, "--force", "--grace-period=0")
	s.until("the other leads", func() bool { return leader() == other })
}

func mustAtoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// machine is what a node must leave as it found it.
func machine(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, name := range []string{
		"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
		"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes", "/proc/sys/net/ipv4/ip_forward",
	} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found[name] = string(text)
	}
	for _, name := range []string{
		"/var/log/pods", "/var/log/containers", "/var/lib/cni", "/var/lib/kubelet", "/run/containerd", "/run/netns",
		"/run/xtables.lock", "/etc/cni/net.d", "/usr/libexec/kubernetes",
	} {
		found[name] = "absent"
		inside, err := filepath.Glob(filepath.Join(name, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(name); err == nil {
			found[name] = strings.Join(inside, " ")
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return found
}
