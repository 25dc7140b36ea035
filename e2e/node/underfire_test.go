// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// shoot kills all operators, or the one of them that acts, some time within the next
// seconds, as a node's death would.
func (p *person) shoot() (what string, err error) {
	pause := time.Duration(rand.Int64N(int64(3 * time.Second)))
	time.Sleep(pause)
	whom := []string{"-l", "app.kubernetes.io/name=kubeblocks"}
	if rand.IntN(2) == 0 {
		holder, err := p.k.Try("", "-n", "kb-system", "get", "lease", specs.LeaderLease, "-o", "jsonpath={.spec.holderIdentity}")
		if pod, _, ok := strings.Cut(holder, "_"); err == nil && ok && pod != "" {
			whom = []string{pod}
		}
	}
	_, err = p.k.Try("", append([]string{"-n", "kb-system", "delete", "pod", "--grace-period=0", "--force", "--ignore-not-found"}, whom...)...)
	return fmt.Sprintf("%s after %s", strings.Join(whom, " "), pause.Round(10*time.Millisecond)), err
}

// operation is something that an operator can be killed in.
type operation struct {
	name    string
	begin   func()
	settled func() // waits for the outcome, and checks it
}

func (p *person) underFire(all []operation) {
	p.t.Helper()
	for _, o := range all {
		type shot struct {
			what string
			err  error
		}
		fired := make(chan shot, 1)
		began := time.Now()
		go func() {
			what, err := p.shoot()
			fired <- shot{what, err}
		}()
		o.begin()
		s := <-fired
		if s.err != nil {
			p.t.Fatalf("%s: %v", o.name, s.err)
		}
		o.settled()
		p.t.Logf("%s: killed %s, all done after %s", o.name, s.what, time.Since(began).Round(time.Second))
	}
}

// spec changes a cluster's.
func (p *person) spec(cluster, json string) {
	p.t.Helper()
	p.k.Kubectl(p.t, "-n", p.ns, "patch", "cluster", cluster, "--type=merge", "-p", `{"spec":`+json+`}`)
}

// comesToRest waits until a cluster runs as its present spec says, with so many pods.
func (p *person) comesToRest(cluster string, pods int) {
	p.t.Helper()
	generation := p.jsonpath("cluster", cluster, "{.metadata.generation}")
	p.untilField(cluster, ".status.observedGeneration", func(s string) bool { return s != "" && mustAtoi(p.t, s) >= mustAtoi(p.t, generation) }, 4*time.Minute)
	p.untilField(cluster, ".status.phase", is("Running"), 4*time.Minute)
	if got := len(strings.Fields(p.k.Kubectl(p.t, "-n", p.ns, "get", "pods", "-l", "app.kubernetes.io/instance="+cluster, "-o", "name"))); got != pods {
		p.t.Errorf("%s has %d pods, and should have %d", cluster, got, pods)
	}
}

// left lists what there is of a cluster.
func (p *person) left(cluster string) []string {
	p.t.Helper()
	out := p.k.Kubectl(p.t, "-n", p.ns, "get", "pods,pvc,statefulsets,secrets,services,endpoints,configmaps,roles,rolebindings,serviceaccounts,poddisruptionbudgets,backuppolicies,clusters,volumesnapshots", "-o", "name")
	var all []string
	for line := range strings.Lines(out) {
		if name := strings.TrimSpace(line); strings.Contains(name, "/"+cluster+"-") || strings.HasSuffix(name, "/"+cluster) || strings.Contains(name, "/data-"+cluster+"-") {
			all = append(all, name)
		}
	}
	return all
}

// gone waits for a cluster to be gone, and for nothing but what may stay to be left.
func (p *person) gone(cluster string, stays ...string) {
	p.t.Helper()
	p.k.Kubectl(p.t, "-n", p.ns, "wait", "--for=delete", "cluster/"+cluster, "--timeout=240s")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		left := slices.DeleteFunc(p.left(cluster), func(s string) bool {
			return slices.ContainsFunc(stays, func(part string) bool { return strings.Contains(s, part) })
		})
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Errorf("%s is gone, and there is still %v", cluster, left)
			return
		}
	}
}

// tag gives the PostgreSQL image a second name, as that of a later minor release.
func (p *person) tag(name string) {
	p.t.Helper()
	cmd, err := p.k.Command("ctr", "-a", filepath.Join(p.k.Dir(), "node1", "containerd.sock"), "-n", "k8s.io", "images", "tag", "--force", testkube.PostgreSQLImage, name)
	if err != nil {
		p.t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%v\n%s", err, out)
	}
}

// runWith has the operator run PostgreSQL from an image.
func (p *person) runWith(image string) {
	p.t.Helper()
	p.k.Kubectl(p.t, "-n", "kb-system", "patch", "deploy", "kubeblocks", "--type=json", "-p",
		`[{"op":"replace","path":"/spec/template/spec/containers/0/args/4","value":"`+image+`"}]`)
}

// TestPodsUnderFire: operators are killed in every kind of operation. All come about, and
// nothing is left of what is taken away.
func TestPodsUnderFire(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "underfire")
	p.repository("underfire")
	p.patient = true
	k.Kubectl(t, "-n", "kb-system", "scale", "deploy/kubeblocks", "--replicas=2")
	t.Cleanup(func() { k.Kubectl(t, "-n", "kb-system", "scale", "deploy/kubeblocks", "--replicas=1") })
	t.Cleanup(func() { k.Kubectl(t, "delete", "addon", "snapshot-controller", "--ignore-not-found") })
	majors := strings.Replace(testkube.PostgreSQLImage, ":15", ":{major}", 1)
	t.Cleanup(func() { p.runWith(majors) })
	const policy = "my-pg-postgresql-backup-policy"
	var full, incremental, snapshot, unwanted string
	generated := func(field string) string { return p.jsonpath("pod", specs.PodName("my-pg", 0), field) }

	p.underFire([]operation{
		{"create", func() { p.kbcli("cluster", "create", "my-pg", "--set", small) }, func() { p.comesToRest("my-pg", 1) }},
		{"archiving on", func() { p.kbcli("cluster", "edit-backup-policy", policy, "--set", "schedule.logfile.enable=true") }, func() {
			p.untilField("my-pg", archivingIs("status"), is("True"), 2*time.Minute)
			p.sql("my-pg", "create table t as select generate_series(1, 10000) as n")
		}},
		{"a datafile backup", func() { full = p.backsUp("my-pg", "datafile") }, func() { p.completed("my-pg", full) }},
		{"an incremental backup", func() { incremental = p.backsUp("my-pg", "incremental") }, func() { p.completed("my-pg", incremental) }},
		{"snapshots on", func() { p.kbcli("addon", "enable", "snapshot-controller") }, func() { p.match(p.kbcli("addon", "list"), `^snapshot-controller .* Enabled`) }},
		{"a VolumeSnapshot", func() { snapshot = p.backsUp("my-pg", "snapshot") }, func() { p.completed("my-pg", snapshot) }},
		{"scale out", func() { p.spec("my-pg", `{"replicas":2}`) }, func() { p.comesToRest("my-pg", 2) }},
		{"restart", func() { p.kbcli("cluster", "restart", "my-pg") }, func() {
			p.untilField("my-pg", ".status.restartedAt", func(s string) bool { return s != "" }, 4*time.Minute)
			p.comesToRest("my-pg", 2)
		}},
		{"volumes grow", func() { p.spec("my-pg", `{"storage":"500Mi"}`) }, func() {
			p.comesToRest("my-pg", 2)
			for n := range 2 {
				p.k.Kubectl(t, "-n", p.ns, "wait", "--for=jsonpath={.status.capacity.storage}=500Mi", "pvc/"+specs.ClaimName("my-pg", n), "--timeout=180s")
			}
		}},
		{"a setting that needs a restart", func() { p.spec("my-pg", `{"settings":{"max_connections":"120"}}`) }, func() {
			for deadline := time.Now().Add(4 * time.Minute); p.everywhere("my-pg", 2, "show max_connections") != "120 120"; time.Sleep(time.Second) {
				if time.Now().After(deadline) {
					t.Fatalf("max_connections is %s", p.everywhere("my-pg", 2, "show max_connections"))
				}
			}
			p.comesToRest("my-pg", 2)
		}},
		{"scale in", func() { p.spec("my-pg", `{"replicas":1}`) }, func() { p.comesToRest("my-pg", 1) }},
		{"a minor upgrade", func() {
			p.tag("kbcli.test/postgresql:15.later")
			p.runWith(majors + ".later")
		}, func() {
			k.Kubectl(t, "-n", "kb-system", "rollout", "status", "deploy/kubeblocks", "--timeout=180s")
			for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(time.Second) {
				if got, err := k.Try("", "-n", p.ns, "get", "pod", specs.PodName("my-pg", 0), "-o", `jsonpath={.spec.containers[?(@.name=="postgresql")].image}`); err == nil && strings.HasSuffix(got, ".later") {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("its image is %s, %v", got, err)
				}
			}
			p.comesToRest("my-pg", 1)
		}},
		{"stop", func() { p.spec("my-pg", `{"stopped":true}`) }, func() { p.untilField("my-pg", ".status.phase", is("Stopped"), 4*time.Minute) }},
		{"start", func() { p.spec("my-pg", `{"stopped":false}`) }, func() { p.comesToRest("my-pg", 1) }},
		{"a backup is deleted", func() {
			unwanted = p.backsUp("my-pg", "datafile")
			p.completed("my-pg", unwanted)
			p.kbcli("cluster", "delete-backup", "my-pg", "--name", unwanted, "--auto-approve")
		}, func() { k.Kubectl(t, "-n", p.ns, "wait", "--for=delete", "backup/"+unwanted, "--timeout=120s") }},
		{"a restore from the repository", func() {
			p.kbcli("cluster", "restore", "copied", "--backup", incremental)
		}, func() { p.comesToRest("copied", 1); p.rows("copied") }},
		{"a restore from a VolumeSnapshot", func() {
			p.kbcli("cluster", "restore", "cloned", "--backup", snapshot)
		}, func() { p.comesToRest("cloned", 1); p.rows("cloned") }},
		{"deleted, with what it has", func() { p.delete("copied") }, func() { p.gone("copied") }},
		{"deleted, its volume stays", func() {
			p.spec("cloned", `{"terminationPolicy":"Halt"}`)
			p.delete("cloned")
		}, func() {
			p.gone("cloned", "persistentvolumeclaim/", "secret/")
			if len(p.left("cloned")) == 0 {
				t.Error("its volume did not stay")
			}
		}},
		{"a second repository", func() { p.another("second") }, func() { p.until(`^second +Ready `, "backuprepo", "list") }},
		{"it becomes the default", func() { p.kbcli("backuprepo", "update", "second", "--default") }, func() { p.until(`^second +Ready .* true `, "backuprepo", "list") }},
		{"the first is it again", func() { p.kbcli("backuprepo", "update", "underfire", "--default") }, func() { p.until(`^underfire +Ready .* true `, "backuprepo", "list") }},
		{"the second is deleted", func() { p.kbcli("backuprepo", "delete", "second", "--auto-approve") }, func() { k.Kubectl(t, "wait", "--for=delete", "backuprepo/second", "--timeout=60s") }},
		{"archiving off", func() { p.kbcli("cluster", "edit-backup-policy", policy, "--set", "schedule.logfile.enable=false") }, func() {
			p.untilField("my-pg", archivingIs("reason"), is("NotEnabled"), 2*time.Minute)
		}},
		{"may not be deleted", func() {
			p.spec("my-pg", `{"terminationPolicy":"DoNotTerminate"}`)
			p.delete("my-pg")
		}, func() {
			p.untilField("my-pg", ".status.reason", is("DoNotTerminate"), 2*time.Minute)
			if got, err := p.inPod("my-pg", 0, "select count(*) from t"); got != "10000" {
				t.Errorf("it says %q, %v", got, err)
			}
			if got := generated("{.metadata.deletionTimestamp}"); got != "" {
				t.Error("its pod is taken away all the same")
			}
		}},
		{"deleted, with its backups", func() { p.spec("my-pg", `{"terminationPolicy":"WipeOut"}`) }, func() {
			p.gone("my-pg")
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
				got := strings.TrimSpace(p.k.Kubectl(t, "-n", p.ns, "get", "backups,volumesnapshots", "-o", "name"))
				if got == "" {
					break
				}
				if time.Now().After(deadline) {
					t.Errorf("there is still %s", got)
					break
				}
			}
		}},
		{"snapshots off", func() { p.kbcli("addon", "disable", "snapshot-controller") }, func() { p.match(p.kbcli("addon", "list"), `^snapshot-controller .* Disabled`) }},
	})
}

// everywhere is what a query gives in each of the first n pods; ? where none answers.
func (p *person) everywhere(cluster string, n int, query string) string {
	var all []string
	for i := range n {
		got, err := p.inPod(cluster, i, query)
		if err != nil {
			got = "?"
		}
		all = append(all, got)
	}
	return strings.Join(all, " ")
}

// rows: a cluster has what was in the source when it was backed up.
func (p *person) rows(cluster string) {
	p.t.Helper()
	if got := p.sql(cluster, "select count(*) from t"); got != "10000" {
		p.t.Errorf("%s has %s rows", cluster, got)
	}
}

// delete asks for a cluster's end and does not wait.
func (p *person) delete(cluster string) {
	p.t.Helper()
	p.k.Kubectl(p.t, "-n", p.ns, "delete", "cluster", cluster, "--wait=false")
}

// another makes a second bucket of the repository's server a repository, which is not the
// default.
func (p *person) another(name string) {
	p.t.Helper()
	p.with("AWS_ACCESS_KEY_ID="+p.s3.AccessKey, "AWS_SECRET_ACCESS_KEY="+p.s3.SecretKey).kbcli("backuprepo", "create", name, "--provider", "s3",
		"--endpoint", "http://"+p.door.Address, "--region", p.s3.Region, "--bucket", p.s3.NewBucket(p.t))
}
