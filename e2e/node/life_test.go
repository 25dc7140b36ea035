// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
)

// pageTime is how the page writes a moment.
const pageTime = "Jan 02,2006 15:04:05 UTC-0700"

// TestPodsLife is the page's session on a real node: a cluster is made, archived, backed
// up to S3, and restored to a moment; so is one whose source is gone.
func TestPodsLife(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "life")
	s3 := p.repository("life")
	p.match(p.kbcli("backuprepo", "list"), `^life +Ready +s3 +Tool +true`)

	p.match(p.kbcli("cluster", "create", "my-pg", "--set", small), "^Cluster my-pg created$")
	began := time.Now()
	p.until(`^my-pg +life +postgresql +postgresql-15 +Delete +Running`, "cluster", "list")
	t.Logf("Running after %s", time.Since(began))
	p.match(p.kbcli("cluster", "list-instances", "my-pg"), `^my-pg-postgresql-0 +life +my-pg +postgresql +Running +primary +ReadWrite .* 400Mi +node1 `)
	describe := p.kbcli("cluster", "describe", "my-pg")
	p.match(describe, `^postgresql +ReadWrite +my-pg-postgresql\.life\.svc\.cluster\.local:5432 `)
	p.match(describe, `^postgresql +my-pg-postgresql-0 +primary +Running +<none> +node1 `)
	p.match(p.kbcli("cluster", "logs", "my-pg"), "database system is ready to accept connections")
	p.match(p.kbcli("cluster", "logs", "my-pg", "--agent"), "this server writes")

	p.locked("my-pg")

	p.match(p.kbcli("cluster", "list-backup-policy"), "^my-pg-postgresql-backup-policy +true +my-pg ")
	out := p.editor(`/logfile:/,/enable:/s/enable: false/enable: true/`).kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy")
	p.match(out, "^backuppolicy.dataprotection.kubeblocks.io/my-pg-postgresql-backup-policy edited$")
	began = time.Now()
	backup := p.match(p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait"), `^Backup (backup-life-my-pg-\d{14}) created successfully`)
	t.Logf("backed up after %s", time.Since(began))
	p.match(p.kbcli("cluster", "list-backup", "my-pg"), `^`+backup+` +my-pg +datafile +Completed `)

	password := p.match(p.kbcli("cluster", "create-account", "my-pg", "--username", "myuser"), `created user: myuser, with password: ([A-Za-z0-9]{10}) `)
	p.match(p.kbcli("cluster", "grant-role", "my-pg", "--username", "myuser", "--role", "READWRITE"), "Success")
	user := p.with("PGPASSWORD=" + password)
	user.feed("create table msg (id serial primary key, text text); insert into msg (text) values ('hello');", "cluster", "connect", "my-pg", "--as-user", "myuser", "--", "-v", "ON_ERROR_STOP=1")
	moment := p.between()
	user.feed("insert into msg (text) values ('late'); drop table if exists nothing;", "cluster", "connect", "my-pg", "--as-user", "myuser", "--", "-v", "ON_ERROR_STOP=1")
	p.untilWindow("my-pg", moment)
	p.past("my-pg", backup)

	p.restore("new-cluster", "my-pg", moment)
	if got := strings.TrimSpace(user.kbcli("cluster", "connect", "new-cluster", "--as-user", "myuser", "--", "-XAtc", "select text from msg")); got != "hello" {
		t.Errorf("the restored cluster has %q", got)
	}
	if got := p.sql("my-pg", "select count(*) from msg"); got != "2" {
		t.Errorf("the source has %s rows", got)
	}
	p.own("new-cluster", "my-pg")
	p.grows("new-cluster")
	p.refused("my-pg")

	// the source goes, and its past stays
	p.match(p.kbcli("cluster", "delete", "my-pg", "--auto-approve"), "^Cluster my-pg deleted$")
	p.match(p.kbcli("cluster", "list-backup"), `^`+backup+` +my-pg \(deleted\) +datafile +Completed `)
	p.afterwards("my-pg", backup)
	p.restore("again", "my-pg", moment)
	if got := p.sql("again", "select text from msg"); got != "hello" {
		t.Errorf("the cluster restored from a deleted one has %q", got)
	}
	p.quiet(s3.SecretKey, password)
}

// locked: who reaches a pod cannot change its settings, archive_command among them, by
// Patroni's REST API.
func (p *person) locked(cluster string) {
	p.t.Helper()
	const ask = `import urllib.request as u
try: print(u.urlopen(u.Request("http://localhost:8008/config", data=b"{}", method="PATCH")).status)
except u.HTTPError as e: print(e.code)`
	if got := strings.TrimSpace(p.k.Kubectl(p.t, "-n", p.ns, "exec", cluster+"-postgresql-0", "-c", "postgresql", "--", "python3", "-c", ask)); got != "401" {
		p.t.Errorf("Patroni's settings can be changed by whoever asks: %s", got)
	}
}

// between is a moment with a second on either side.
func (p *person) between() string {
	time.Sleep(1200 * time.Millisecond)
	m := time.Now()
	time.Sleep(1200 * time.Millisecond)
	return m.In(time.FixedZone("", 8*3600)).Format(pageTime)
}

// untilWindow waits until a moment can be gone back to.
func (p *person) untilWindow(cluster, moment string) {
	p.t.Helper()
	at, err := time.Parse(pageTime, moment)
	if err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		last := p.until(`~ ([A-Z][a-z]{2} \d\d,\d{4} \d\d:\d\d:\d\d UTC\+0800)`, "cluster", "describe", cluster)
		to, err := time.Parse(pageTime, last)
		if err != nil {
			p.t.Fatal(err)
		}
		if to.After(at) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the window of %s ends at %s, and %s was wanted", cluster, last, moment)
		}
	}
}

// restore makes a cluster of a moment of another, and waits until it serves.
func (p *person) restore(name, source, moment string) {
	p.t.Helper()
	began := time.Now()
	p.match(p.kbcli("cluster", "restore", name, "--restore-to-time", moment, "--source-cluster", source, "--wait", "--timeout", "4m"), "^Cluster "+name+" created$")
	p.t.Logf("%s serves after %s", name, time.Since(began))
	p.match(p.kbcli("cluster", "list"), "^"+name+" .* Running ")
}

// own: the restored cluster is one of its own, with passwords of its own.
func (p *person) own(name, source string) {
	p.t.Helper()
	get := func(cluster, what string) string {
		return p.k.Kubectl(p.t, "-n", p.ns, "get", "secret", cluster+"-postgresql-"+what, "-o", "jsonpath={.data.password}")
	}
	for _, what := range []string{"superuser", "replication"} {
		if get(name, what) == get(source, what) {
			p.t.Errorf("%s and %s have one password of %s", name, source, what)
		}
	}
	// kbcli connects with the password of the Secret, over TCP
	if got := p.sql(name, "select current_user, pg_is_in_recovery(), current_setting('synchronous_standby_names')"); got != "postgres|f|" {
		p.t.Errorf("%s says %q", name, got)
	}
}

// grows: standbys of a restored cluster follow it.
func (p *person) grows(name string) {
	p.t.Helper()
	p.k.Kubectl(p.t, "-n", p.ns, "patch", "cluster", name, "--type=merge", "-p", `{"spec":{"replicas":2}}`)
	p.until(`^`+name+`-postgresql-1 .* standby +Readonly`, "cluster", "list-instances", name)
	p.sql(name, "create table here as select 1 as n")
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		got, err := p.inPod(name, 1, "select n, pg_is_in_recovery() from here")
		if got == "1|t" {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the standby says %q, %v", got, err)
		}
	}
}

// refused: a moment that cannot be reached is refused when it is typed, and where an
// object asks for it regardless, the object says why.
func (p *person) refused(source string) {
	p.t.Helper()
	s := p.try("", "cluster", "restore", "never", "--restore-to-time", "2023-04-17T11:56:40Z", "--source-cluster", source)
	if s.code != 20 {
		p.t.Errorf("exit code %d\n%s", s.code, s.err)
	}
	p.match(s.err, "^error: restore-to-time is out of time range, you can view the recoverable time: $")
	p.match(s.err, "^\tkbcli cluster describe "+source+" -n "+p.ns+"$")
	p.k.Apply(p.t, `{apiVersion: apps.kubeblocks.io/v1alpha1, kind: Cluster, metadata: {name: never, namespace: `+p.ns+`},
spec: {storage: 400Mi, storageClassName: `+testkube.StorageClass+`, restore: {sourceCluster: `+source+`, sourceNamespace: `+p.ns+`, time: "2023-04-17T11:56:40Z"}}}`)
	p.until(`^never .* Failed `, "cluster", "list")
	p.match(p.kbcli("cluster", "describe", "never"), "^Message: +2023-04-17 11:56:40Z lies in no recoverable window")
	p.k.Kubectl(p.t, "-n", p.ns, "delete", "cluster", "never")
}

// quiet: no secret stands in a log or in an object but a Secret.
func (p *person) quiet(secrets ...string) {
	p.t.Helper()
	scene := p.scene()
	for _, s := range secrets {
		if strings.Contains(scene, s) {
			p.t.Error("a secret can be read in a log or an object")
		}
	}
}
