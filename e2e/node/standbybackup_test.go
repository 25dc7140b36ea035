// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// TestPodsStandbyBackup: backups of a standby while accounts are written to. The primary's
// files are not read: one of them nobody can read. What is restored is exact.
func TestPodsStandbyBackup(t *testing.T) {
	p := archived(t, "standby", small)
	k := p.k

	// there is none yet
	s := p.try("", "cluster", "backup", "my-pg", "--type", "datafile", "--target", "standby")
	if s.code != 1 || !strings.Contains(s.err, `cluster "my-pg" has no standby: it has one server`) {
		t.Errorf("exit code %d: %s", s.code, s.err)
	}
	s = p.try("", "cluster", "backup", "my-pg", "--type", "datafile", "--target", "prefer-standby", "--name", "alone", "--wait")
	if s.code != 0 || !strings.Contains(s.err, "it is of the primary: no standby takes the backup: cluster my-pg has one server") {
		t.Errorf("exit code %d: %s", s.code, s.err)
	}

	k.Kubectl(t, "-n", p.ns, "patch", "cluster", "my-pg", "--type=merge", "-p", `{"spec":{"replicas":2}}`)
	p.until(`^my-pg-postgresql-1 .* standby +Readonly`, "cluster", "list-instances", "my-pg")
	p.until(`^my-pg .* Running`, "cluster", "list")
	p.sql("my-pg", `create table account (id int primary key, n int not null, filler text);
insert into account select i, 0, md5(i::text) from generate_series(1, 20000) i;
create table ledger (id bigserial primary key, source int, target int, n int);
create procedure pay() language plpgsql as $$ declare a int; b int; begin
  for i in 1..1000000 loop
    a := 1 + floor(random() * 19999)::int; b := 20001 - a;
    update account set n = n - 7 where id = a; update account set n = n + 7 where id = b;
    insert into ledger (source, target, n) values (a, b, 7); commit;
    exit when exists (select from pg_class where relname = 'enough');
  end loop; end $$`)
	k.Kubectl(t, "-n", p.ns, "exec", specs.PodName("my-pg", 0), "-c", "postgresql", "--", "sh", "-c", "echo x > $PGDATA/base/nobody && chmod 000 $PGDATA/base/nobody")
	writer := exec.Command(k.Program(), "-n", p.ns, "cluster", "connect", "my-pg", "--", "-XAtq", "-c", "call pay()")
	writer.Env = p.env
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	p.match(p.try("", "cluster", "backup", "my-pg", "--type", "datafile", "--target", "primary", "--name", "touches", "--wait").err, "permission denied")
	began := time.Now()
	p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--target", "standby", "--name", "full", "--wait")
	t.Logf("a full one of the standby after %s, %s payments", time.Since(began), p.sql("my-pg", "select count(*) from ledger"))
	p.kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "target=prefer-standby")
	began = time.Now()
	p.kbcli("cluster", "backup", "my-pg", "--type", "incremental", "--name", "more", "--wait")
	t.Logf("an incremental one after %s, %s payments", time.Since(began), p.sql("my-pg", "select count(*) from ledger"))
	for _, name := range []string{"full", "more"} {
		d := p.kbcli("cluster", "describe-backup", name)
		p.match(d, `^Taken Of: +standby my-pg-postgresql-1$`)
		if strings.Contains(d, "everything was read") {
			t.Error(d)
		}
	}
	p.sql("my-pg", "create table enough ()")
	if err := writer.Wait(); err != nil {
		t.Error(err)
	}
	const sum = `select (select count(*) from ledger), (select sum(hashint8(id) # hashint4(source * 20001 + target)) from ledger),
		(select sum(n) from account), (select sum(hashint4(id) # hashint4(n)) from account)`
	want := p.sql("my-pg", sum)
	moment := p.between()
	p.untilWindow("my-pg", moment)

	// each is a cluster of its own; the books of each balance, and the last has all
	p.kbcli("cluster", "restore", "of-full", "--backup", "full", "--wait", "--timeout", "4m")
	p.restore("latest", "my-pg", moment)
	if got := p.sql("latest", sum); got != want {
		t.Errorf("the restored accounts are %s, and were %s", got, want)
	}
	for _, cluster := range []string{"of-full", "latest"} {
		off := p.sql(cluster, `select count(*) from account a full join
			(select id, sum(n) as n from (select source as id, -n as n from ledger union all select target, n from ledger) x group by id) l using (id)
			where a.n <> coalesce(l.n, 0) or a.id is null`)
		rows := p.sql(cluster, "select count(*) from ledger")
		p.sql(cluster, "create extension amcheck; select bt_index_check(indexrelid, true) from pg_index join pg_class c on c.oid = indrelid where relname in ('account', 'ledger')")
		t.Logf("%s: %s payments, %s accounts are off", cluster, rows, off)
		if off != "0" {
			t.Errorf("%s: %s accounts are not what the ledger says", cluster, off)
		}
	}
}
