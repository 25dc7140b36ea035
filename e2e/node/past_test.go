// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

// past asks everything that there is to ask about the past of a cluster that runs.
func (p *person) past(cluster, backup string) {
	t := p.t
	t.Helper()
	began := time.Now()
	history := p.kbcli("cluster", "history", cluster, "--since", "1 hour ago", "--min-rows", "1")
	p.match(history, `public\.msg +CREATE TABLE`)
	p.follows(cluster)

	p.match(p.kbcli("cluster", "verify-backup", backup), "^Backup "+backup+" verified$")
	s := p.try("", "cluster", "verify-backup", backup, "--restore")
	p.match(s.err, `^next: kbcli cluster restore .* --backup `+backup)
	p.match(p.kbcli("cluster", "expire", cluster, "--dry-run"), `^`+backup+` .* no +<none> +<none> +it was taken by hand`)
	p.match(p.kbcli("cluster", "describe-backup", backup), "^Status: +Completed$")
	p.match(p.kbcli("cluster", "list-events", cluster), "BackupCompleted +Backup/"+backup)
	p.match(p.kbcli("cluster", "logs", cluster, "--tail", "5"), ".")

	dry := p.try("", "cluster", "restore", "never", "--latest", "--source-cluster", cluster, "--dry-run", "-o", "json")
	var plan struct{ Backup string }
	if err := json.Unmarshal([]byte(dry.out), &plan); err != nil || dry.code != 0 || plan.Backup != backup {
		t.Errorf("restore --dry-run: %d %v\n%s%s", dry.code, err, dry.out, dry.err)
	}

	// the disks of these volumes are smaller than what is called enough
	levels := p.doctor(cluster)
	for _, check := range []string{
		"operator/operator-running", "repository life/repository-reachable", "cluster " + p.ns + "/" + cluster + "/instances-running",
		"cluster " + p.ns + "/" + cluster + "/server-reachable", "cluster " + p.ns + "/" + cluster + "/slot-retention",
		"cluster " + p.ns + "/" + cluster + "/archive-streaming", "cluster " + p.ns + "/" + cluster + "/backup-age", "cluster " + p.ns + "/" + cluster + "/clock",
	} {
		if levels[check] != "pass" {
			t.Errorf("doctor: %s: %q", check, levels[check])
		}
	}
	p.strangers(cluster, backup)
	t.Logf("asked about the past in %s", time.Since(began))
}

// doctor is the level of each check, by subject and name.
func (p *person) doctor(names ...string) map[string]string {
	p.t.Helper()
	s := p.try("", append([]string{"doctor", "--all", "-o", "json"}, names...)...)
	var d struct {
		Subjects []struct {
			Subject  string
			Findings []struct{ Check, Level string }
		}
	}
	if err := json.Unmarshal([]byte(s.out), &d); err != nil {
		p.t.Fatalf("doctor: %v\n%s%s", err, s.out, s.err)
	}
	out := map[string]string{}
	for _, x := range d.Subjects {
		for _, f := range x.Findings {
			out[x.Subject+"/"+f.Check] = f.Level
		}
	}
	return out
}

// follows: a history that is followed tells what happens now, and ends with ^C.
func (p *person) follows(cluster string) {
	t := p.t
	t.Helper()
	cmd := exec.Command(p.k.Program(), "-n", p.ns, "cluster", "history", cluster, "--follow", "--since", "now", "-o", "json", "--kind", "delete")
	cmd.Env = p.env
	file, err := os.Create(filepath.Join(t.TempDir(), "followed"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var notes bytes.Buffer
	cmd.Stdout, cmd.Stderr = file, &notes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.sql(cluster, "create table follow as select generate_series(1, 2500) n; delete from follow")
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		text, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), `"rows":2500`) {
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatalf("nothing was told of it:\n%s%s", text, notes.String())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("it ended with %v\n%s", err, notes.String())
	}
}

// strangers: somebody who may look at objects, and run nothing in pods, is told what they
// lack, and of doctor what the objects tell.
func (p *person) strangers(cluster, backup string) {
	t := p.t
	t.Helper()
	p.k.Apply(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: looks}, rules: [
{apiGroups: [""], resources: [pods, persistentvolumeclaims], verbs: [get, list]},
{apiGroups: [apps.kubeblocks.io, dataprotection.kubeblocks.io, extensions.kubeblocks.io], resources: ["*"], verbs: [get, list]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: looks}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: looks}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: ann}]}`)
	t.Cleanup(func() { p.k.Kubectl(t, "delete", "clusterrolebinding/looks", "clusterrole/looks") })
	text, err := os.ReadFile(p.k.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	for _, u := range config["users"].([]any) {
		u.(map[string]any)["user"].(map[string]any)["as"] = "ann"
	}
	if text, err = yaml.Marshal(config); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ann := p.with("KUBECONFIG=" + file)
	for _, args := range [][]string{{"cluster", "history", cluster}, {"cluster", "verify-backup", backup}, {"cluster", "expire", cluster, "--dry-run"}} {
		s := ann.try("", args...)
		if s.code != 1 {
			t.Errorf("%v: code %d\n%s", args, s.code, s.out)
		}
		p.match(s.err, `^error: you may not run commands in the pods of namespace `+p.ns+`: .*"ann" cannot .*pods/exec`)
		p.match(s.err, `^next: kubectl auth can-i create pods --subresource exec -n `+p.ns+`$`)
	}
	levels := ann.doctor(cluster)
	if subject := "cluster " + p.ns + "/" + cluster; levels[subject+"/server-reachable"] != "warn" || levels[subject+"/archive-streaming"] != "pass" || levels[subject+"/instances-running"] != "pass" {
		t.Errorf("doctor of who may not ask: %v", levels)
	}
}

// afterwards asks about the past of a cluster that is deleted: the operator answers.
func (p *person) afterwards(cluster, backup string) {
	p.t.Helper()
	p.match(p.kbcli("cluster", "history", cluster, "--since", "1 hour ago"), `public\.msg +CREATE TABLE`)
	p.match(p.kbcli("cluster", "verify-backup", backup), "^Backup "+backup+" verified$")
	if s := p.try("", "cluster", "history", "nobody"); s.code != 4 {
		p.t.Errorf("code %d\n%s", s.code, s.err)
	}
}
