// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/internal/tests3"
)

// TestRestoreTargets: each kind of target, on a source that was promoted on the way.
func TestRestoreTargets(t *testing.T) {
	p := archived(t, "targets", small)
	k := p.k
	p.sql("my-pg", "create table r (n int)")
	backup := p.match(p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait"), `^Backup (\S+) created`)
	p.sql("my-pg", "insert into r values (1)")
	moment := p.between()
	xid := p.sql("my-pg", "insert into r values (2) returning pg_current_xact_id()")
	lsn := p.sql("my-pg", "select pg_current_wal_insert_lsn()")
	p.sql("my-pg", "select pg_create_restore_point('here')")
	p.sql("my-pg", "insert into r values (3)")
	// its pod comes back, and Patroni makes it the primary again: another timeline
	k.Kubectl(t, "-n", p.ns, "delete", "pod", "my-pg-postgresql-0")
	p.until(`^f$`, "cluster", "connect", "my-pg", "--", "-XAtqc", "select pg_is_in_recovery()")
	first := p.sql("my-pg", "select timeline_id from pg_control_checkpoint()")
	p.sql("my-pg", "insert into r values (4)")
	p.sql("my-pg", "select pg_create_restore_point('end')")
	t.Logf("the source is on timeline %s", first)
	p.kbcli("cluster", "restore", "x", "--restore-to-name", "end", "--source-cluster", "my-pg", "--dry-run") // waits for the archive
	all := []struct{ name, flags, rows string }{
		{"time", "--restore-to-time " + strings.ReplaceAll(moment, " ", "_"), "1"},
		{"xid", "--restore-to-xid " + xid, "1,2"},
		{"xid-exclusive", "--restore-to-xid " + xid + " --exclusive", "1"},
		{"lsn", "--restore-to-lsn " + lsn, "1,2"},
		{"name", "--restore-to-name here", "1,2"},
		{"latest", "--latest", "1,2,3,4"},
		{"timeline", "--latest --timeline 1", "1,2,3"},
		{"backup", "--backup " + backup, ""},
	}
	for len(all) > 0 {
		n := min(4, len(all))
		for _, c := range all[:n] {
			words := []string{"cluster", "restore", c.name}
			for _, w := range strings.Fields(c.flags) {
				words = append(words, strings.ReplaceAll(w, "_", " "))
			}
			if c.name != "backup" {
				words = append(words, "--source-cluster", "my-pg")
			}
			p.kbcli(words...)
		}
		for _, c := range all[:n] {
			p.until(`^`+c.name+` .* Running`, "cluster", "list")
			if got := p.sql(c.name, "select coalesce(string_agg(n::text, ',' order by n), '') from r"); got != c.rows {
				t.Errorf("%s has the rows %q, want %q", c.name, got, c.rows)
			}
			t.Logf("%s: rows %q; %s", c.flags, c.rows, p.match(p.kbcli("cluster", "describe", c.name), `^Took: +(.*)$`))
			p.kbcli("cluster", "delete", c.name, "--auto-approve")
		}
		all = all[n:]
	}
}

// TestHaltAndRestore: a cluster that was halted leaves its volume. One of its name that is
// restored does not take it for its own data, nor takes it away with itself; one that is
// made without a restore takes it up, and the password of the Secret is its.
func TestHaltAndRestore(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "halt")
	p.repository("halt")
	p.kbcli("cluster", "create", "my-pg", "--set", small, "--termination-policy", "Halt", "--wait")
	p.kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "schedule.logfile.enable=true")
	p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait")
	p.sql("my-pg", "create table kept as select 7 as n")
	lineage := p.jsonpath("cluster", "my-pg", "{.status.lineage}")
	p.kbcli("cluster", "delete", "my-pg", "--auto-approve")
	claim := p.jsonpath("pvc", "data-my-pg-postgresql-0", "{.metadata.uid}")
	time.Sleep(1100 * time.Millisecond) // objects tell their age in seconds
	p.k.Apply(t, `{apiVersion: apps.kubeblocks.io/v1alpha1, kind: Cluster, metadata: {name: my-pg, namespace: halt},
spec: {storage: 400Mi, storageClassName: `+testkube.StorageClass+`, restore: {sourceCluster: my-pg, sourceLineage: `+lineage+`, latest: true}}}`)
	p.until(`^my-pg .* Failed `, "cluster", "list")
	p.match(p.kbcli("cluster", "describe", "my-pg"), "^Message: +the volumes of an earlier cluster of this name are still there, and nothing is restored over data: data-my-pg-postgresql-0; ")
	p.kbcli("cluster", "delete", "my-pg", "--auto-approve")
	if got := p.jsonpath("pvc", "data-my-pg-postgresql-0", "{.metadata.uid}{.metadata.deletionTimestamp}"); got != claim {
		t.Fatalf("the volume was %s, and is %s", claim, got)
	}
	p.kbcli("cluster", "create", "my-pg", "--set", small, "--wait")
	if got := p.sql("my-pg", "select n from kept"); got != "7" {
		t.Errorf("the cluster that took the volume up has %q", got)
	}
	// where the volume is given up, the name is free for a restore
	p.kbcli("cluster", "delete", "my-pg", "--auto-approve")
	k.Kubectl(t, "-n", p.ns, "wait", "--for=delete", "pvc/data-my-pg-postgresql-0", "--timeout=120s")
	p.kbcli("cluster", "restore", "my-pg", "--latest", "--source-cluster", "my-pg", "--source-lineage", lineage, "--wait", "--timeout", "5m")
	if got := p.sql("my-pg", "select n from kept"); got != "7" {
		t.Errorf("the restored cluster has %q", got)
	}
}

// TestOtherKubernetes: everything is lost but the bucket and the identity of a sealed
// repository: objects, kinds, namespaces, operator, credentials. A Kubernetes that
// never had the cluster names the bucket, sees its backups and windows, and restores it.
func TestOtherKubernetes(t *testing.T) {
	k := testkube.Node(t)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "backup.key")
	if err := os.WriteFile(key, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s3 := tests3.Start(t)
	bucket := s3.NewBucket(t)
	at := k.Expose(t, strings.TrimPrefix(s3.Endpoint, "http://"))
	named := func(p *person, more ...string) string {
		return p.with("AWS_ACCESS_KEY_ID="+s3.AccessKey, "AWS_SECRET_ACCESS_KEY="+s3.SecretKey).kbcli(append([]string{
			"backuprepo", "create", "offsite", "--provider", "s3", "--endpoint", "http://" + at, "--region", s3.Region, "--bucket", bucket, "--default",
		}, more...)...)
	}
	install(t, k)
	p := newPerson(t, k, "old")
	named(p, "--identity-file", key)
	p.kbcli("cluster", "create", "my-pg", "--set", small, "--wait")
	p.kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "schedule.logfile.enable=true")
	backup := p.match(p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait"), `^Backup (\S+) created`)
	password := p.match(p.kbcli("cluster", "create-account", "my-pg", "--username", "myuser"), `with password: ([A-Za-z0-9]{10}) `)
	p.sql("my-pg", "create table t as select generate_series(1, 1000) as n; grant select on t to public")
	moment := p.between()
	p.sql("my-pg", "drop table t")
	p.untilWindow("my-pg", moment)

	// the end of a Kubernetes: whoever could tidy up goes first
	k.Kubectl(t, "delete", "namespace", "kb-system", "--timeout=120s")
	k.Kubectl(t, "-n", "old", "delete", "statefulsets,pods,pvc,secrets", "--all", "--grace-period=0", "--force", "--timeout=120s")
	for _, kind := range []string{"clusters", "backups", "backuppolicies", "backuprepos", "addons"} {
		names, err := k.Try("", "get", kind+suffix(kind), "-A", "-o", `jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {end}`)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range strings.Fields(names) {
			ns, name, _ := strings.Cut(n, "/")
			args := []string{"patch", kind + suffix(kind), name, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`}
			if ns != "" {
				args = append([]string{"-n", ns}, args...)
			}
			k.Kubectl(t, args...)
		}
	}
	crds := k.Kubectl(t, "get", "crds", "-o", "name")
	for name := range strings.FieldsSeq(crds) {
		if strings.HasSuffix(name, ".kubeblocks.io") {
			k.Kubectl(t, "delete", name, "--timeout=120s")
		}
	}
	k.Kubectl(t, "delete", "namespace", "old", "--timeout=120s")

	install(t, k)
	q := newPerson(t, k, "young")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(q.scene())
		}
		k.Kubectl(t, "delete", "namespace", "young", "--timeout=180s")
		k.Kubectl(t, "delete", "backuprepo", "offsite", "--timeout=60s")
	})
	began := time.Now()
	named(q, "--identity-file", key)
	q.until(`^offsite +Ready`, "backuprepo", "list")
	old := *q
	old.ns = "old"
	k.Kubectl(t, "create", "namespace", "old")
	old.until(`^`+backup+` +my-pg \(deleted\) +datafile +Completed `, "cluster", "list-backup")
	t.Logf("the backups are back %s after the bucket was named", time.Since(began))
	began = time.Now()
	q.kbcli("cluster", "restore", "my-pg", "--restore-to-time", moment, "--source-cluster", "my-pg", "--source-namespace", "old",
		"--set", small, "--wait", "--timeout", "5m")
	t.Logf("it serves after %s: %s", time.Since(began), q.match(q.kbcli("cluster", "describe", "my-pg"), `^Took: +(.*)$`))
	user := q.with("PGPASSWORD=" + password)
	if got := strings.TrimSpace(user.kbcli("cluster", "connect", "my-pg", "--as-user", "myuser", "--", "-XAtc", "select count(*) from t")); got != "1000" {
		t.Errorf("there are %s rows", got)
	}
	k.Kubectl(t, "delete", "namespace", "old", "--timeout=120s")
}

func suffix(kind string) string {
	switch kind {
	case "clusters":
		return ".apps.kubeblocks.io"
	case "addons":
		return ".extensions.kubeblocks.io"
	}
	return ".dataprotection.kubeblocks.io"
}
