// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/internal/tests3"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// person types kbcli commands, with a kubeconfig and a namespace.
type person struct {
	t       *testing.T
	k       *testkube.Cluster
	ns      string
	env     []string
	patient bool // types a command again that was refused for want of an operator

	door *testkube.Door // of the repository that was made last
	s3   *tests3.Server // that it is on
}

// newPerson makes the namespace, in which the pod security standard "restricted" holds.
func newPerson(t *testing.T, k *testkube.Cluster, ns string) *person {
	t.Helper()
	k.Kubectl(t, "wait", "--for=delete", "namespace/"+ns, "--timeout=120s") // that of a run before, on a node that lasts
	k.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+ns+", labels: {pod-security.kubernetes.io/enforce: restricted}}}")
	t.Cleanup(func() { k.Kubectl(t, "delete", "namespace", ns, "--ignore-not-found", "--wait=false") })
	home := t.TempDir()
	return &person{t: t, k: k, ns: ns, env: []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + k.Kubeconfig, "TZ=Asia/Shanghai", "LC_ALL=C.UTF-8",
		"KBCLI_CONTEXT=" + strings.TrimSpace(k.Kubectl(t, "config", "current-context")),
	}}
}

// with is the person with more in the environment.
func (p *person) with(env ...string) *person {
	q := *p
	q.env = append(append([]string(nil), p.env...), env...)
	return &q
}

// said is what a command answered.
type said struct {
	out, err string
	code     int
}

func (p *person) try(stdin string, args ...string) said {
	p.t.Helper()
	cmd := exec.Command(p.k.Program(), append([]string{"-n", p.ns}, args...)...)
	cmd.Env, cmd.Stdin = p.env, strings.NewReader(stdin)
	var out, notes bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &notes
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return said{out.String(), notes.String(), cmd.ProcessState.ExitCode()}
}

// kbcli is what a command printed that must go well.
func (p *person) kbcli(args ...string) string {
	p.t.Helper()
	return p.feed("", args...)
}

func (p *person) feed(stdin string, args ...string) string {
	p.t.Helper()
	s := p.try(stdin, args...)
	for deadline := time.Now().Add(time.Minute); p.patient && s.code != 0 && strings.Contains(s.err, "the operator of KubeBlocks") && time.Now().Before(deadline); {
		time.Sleep(500 * time.Millisecond)
		s = p.try(stdin, args...)
	}
	if s.code != 0 {
		p.t.Fatalf("kbcli %s: exit code %d\n%s%s", strings.Join(args, " "), s.code, s.out, s.err)
	}
	return s.out
}

// match fails the test unless text has the pattern, and gives what its group holds.
func (p *person) match(text, pattern string) string {
	p.t.Helper()
	m := regexp.MustCompile("(?m)" + pattern).FindStringSubmatch(text)
	if m == nil {
		p.t.Fatalf("there is no %q in\n%s", pattern, text)
	}
	return m[len(m)-1]
}

// until waits for a command to print the pattern.
func (p *person) until(pattern string, args ...string) string {
	p.t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	var last said
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		last = p.try("", args...)
		if m := re.FindStringSubmatch(last.out); m != nil {
			return m[len(m)-1]
		}
	}
	p.t.Fatalf("kbcli %s never printed %q, last:\n%s%s", strings.Join(args, " "), pattern, last.out, last.err)
	return ""
}

// sql is what a query of the superuser gives, through kbcli.
func (p *person) sql(cluster, query string) string {
	p.t.Helper()
	return strings.TrimSpace(p.kbcli("cluster", "connect", cluster, "--", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", query))
}

// inPod is what a query gives in the n-th pod, without a password.
func (p *person) inPod(cluster string, n int, query string) (string, error) {
	out, err := p.k.Try("", "-n", p.ns, "exec", specs.PodName(cluster, n), "-c", "postgresql", "--", "psql", "-XAtqU", "postgres", "-v", "ON_ERROR_STOP=1", "-c", query)
	return strings.TrimSpace(out), err
}

// scene is what there is to see when something did not happen.
func (p *person) scene() string {
	all := []string{}
	show := func(args ...string) {
		out, err := p.k.Try("", args...)
		if err != nil {
			out += err.Error()
		}
		all = append(all, strings.Join(args, " ")+":\n"+out)
	}
	show("-n", p.ns, "get", "clusters,backups,pods,pvc", "-o", "wide", "--show-labels")
	show("-n", p.ns, "get", "clusters,backups", "-o", "yaml")
	show("get", "backuprepos", "-o", "yaml")
	show("-n", p.ns, "get", "events", "--sort-by=lastTimestamp")
	pods, err := p.k.Try("", "-n", p.ns, "get", "pods", "-o", "name")
	if err != nil {
		pods = ""
	}
	for _, pod := range strings.Fields(pods) {
		show("-n", p.ns, "logs", "--all-containers", "--prefix", "--tail=25", pod)
	}
	show("-n", "kb-system", "logs", "deploy/kubeblocks", "--tail=40")
	return strings.Join(all, "\n")
}

// editor is a program that does to a file what sed would.
func (p *person) editor(script string) *person {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "editor")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nexec sed -i '"+script+"' \"$1\"\n"), 0o755); err != nil {
		p.t.Fatal(err)
	}
	return p.with("EDITOR=" + file)
}

// repository makes a bucket of a server that pods reach the default repository. more are
// flags of backuprepo create.
func (p *person) repository(name string, more ...string) *tests3.Server {
	p.t.Helper()
	s3 := tests3.Start(p.t)
	p.s3 = s3
	p.door = p.k.Door(p.t, strings.TrimPrefix(s3.Endpoint, "http://"))
	out := p.with("AWS_ACCESS_KEY_ID="+s3.AccessKey, "AWS_SECRET_ACCESS_KEY="+s3.SecretKey).kbcli(append([]string{
		"backuprepo", "create", name, "--provider", "s3", "--endpoint", "http://" + p.door.Address, "--region", s3.Region, "--bucket", s3.NewBucket(p.t), "--default",
	}, more...)...)
	p.match(out, "^BackupRepo "+name+" created$")
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Log(p.scene())
		}
		p.door.Open(p.t)
		// Backups go with the namespace, and their bytes before them
		p.k.Kubectl(p.t, "delete", "namespace", p.ns, "--timeout=180s")
		p.k.Kubectl(p.t, "delete", "backuprepo", name, "--timeout=60s")
	})
	return s3
}

// small is what a cluster of a test may take.
const small = "storage=400Mi,storageClass=" + testkube.StorageClass
