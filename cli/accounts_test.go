// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/internal/testpg"
)

func TestScram(t *testing.T) {
	got, err := scramOf("pencil", []byte("0123456789abcdef"))
	if err != nil || !regexp.MustCompile(`^SCRAM-SHA-256\$4096:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$`).MatchString(got) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := scramVerifier("pässword"); err == nil {
		t.Error("a password that needs SASLprep is taken")
	}
}

func TestRandomPassword(t *testing.T) {
	seen := map[string]bool{}
	letters := map[rune]int{}
	for range 2000 {
		p := randomPassword()
		if !regexp.MustCompile(`^[A-Za-z0-9]{10}$`).MatchString(p) || seen[p] {
			t.Fatalf("%q", p)
		}
		seen[p] = true
		for _, r := range p {
			letters[r]++
		}
	}
	for _, r := range lettersAndDigits {
		// 20000 draws of 62: about 323 each, and 150 is ten deviations away.
		if n := letters[r]; n < 150 || n > 500 {
			t.Errorf("%q came %d times", r, n)
		}
	}
}

// scramServer is a PostgreSQL that wants SCRAM of everybody but its superuser, and
// writes every statement to its log.
func scramServer(t *testing.T, major int) (*bench, *testpg.Server) {
	t.Helper()
	s := testpg.Start(t, testpg.Options{Major: major, Settings: map[string]string{
		"log_statement": "all", "password_encryption": "scram-sha-256",
	}})
	hba := "local all postgres trust\nlocal all all scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(s.DataDir, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Reload(t)
	b := newBench(t)
	b.cluster("my-pg", nil)
	b.admin = s.ConnString("postgres")
	return b, s
}

func login(ctx context.Context, s *testpg.Server, user, password string) (*pgx.Conn, error) {
	return loginTo(ctx, s, "postgres", user, password)
}

// mustNot15 tries what PostgreSQL forbids by itself since 15.
func mustNot15(ctx context.Context, t *testing.T, major int, c *pgx.Conn, sql string) {
	t.Helper()
	if major >= 15 {
		mustNot(ctx, t, c, sql)
	}
}

func loginTo(ctx context.Context, s *testpg.Server, database, user, password string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(s.ConnString("postgres"))
	if err != nil {
		return nil, err
	}
	cfg.Database = database
	cfg.User, cfg.Password = user, password
	return pgx.ConnectConfig(ctx, cfg)
}

func must(ctx context.Context, t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(ctx, sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

func mustNot(ctx context.Context, t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("%s: %v, and it must be refused", sql, err)
	}
}

var inBox = regexp.MustCompile(`\| Success \| created user: (.*), with password: ([A-Za-z0-9]{10}) \|`)

func TestAccounts(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			ctx := t.Context()
			b, s := scramServer(t, major)
			const odd = `Od"d; drop'--`
			long := strings.Repeat("ü", 31) + "x" // 63 bytes
			s.Exec(t, `create database "Other db"`)
			passwords := map[string]string{}
			for _, user := range []string{"myuser", "reader", odd, "Müller 7", long} {
				out, errs, code := b.run("cluster", "create-account", "my-pg", "--username", user)
				m := inBox.FindStringSubmatch(out)
				if code != 0 || m == nil || m[1] != user || errs != rememberAlert+"\n" {
					t.Fatalf("code %d\n%s%s", code, out, errs)
				}
				passwords[user] = m[2]
				if strings.Contains(s.Log(), m[2]) {
					t.Errorf("the password of %s is in the server's log", user)
				}
			}
			if _, err := login(ctx, s, "myuser", "wrong"); err == nil {
				t.Fatal("any password will do")
			}
			b.want("+---------+----------------------------------------+\n| RESULT  | MESSAGE                                |\n+---------+----------------------------------------+\n"+
				"| Success | granted role READWRITE to user: myuser |\n+---------+----------------------------------------+\n", "", 0,
				"cluster", "grant-role", "my-pg", "--name", "myuser", "--role", "readwrite")
			for _, args := range [][]string{{"grant-role", "-u", "reader", "--role", "READONLY"}, {"grant-role", "-u", odd, "--role", "SUPERUSER"}} {
				if _, errs, code := b.run(append([]string{"cluster", args[0], "my-pg"}, args[1:]...)...); code != 0 {
					t.Fatalf("%v: %d %s", args, code, errs)
				}
			}
			b.want("", "error: the name of an account has at most 63 bytes, and \""+long+"y\" has 64\nhint: such as --username myuser\n", exitUsage, "cluster", "create-account", "my-pg", "-u", long+"y")
			s.Exec(t, "create table theirs (i int); insert into theirs values (1)")
			s.Exec(t, `create database later`)

			c, err := login(ctx, s, "myuser", passwords["myuser"])
			if err != nil {
				t.Fatal(err)
			}
			must(ctx, t, c, "create table if not exists msg(id SERIAL PRIMARY KEY, msg text, time timestamp)")
			must(ctx, t, c, "insert into msg (msg, time) values ('hello', now())")
			must(ctx, t, c, "insert into theirs values (2)")
			must(ctx, t, c, "select * from theirs")
			mustNot(ctx, t, c, "drop table theirs")
			mustNot(ctx, t, c, "create role x")
			must(ctx, t, c, "drop table msg")
			// every database, also one that was made since, and what another account makes
			for _, db := range []string{"Other db", "later"} {
				m, err := loginTo(ctx, s, db, "Müller 7", passwords["Müller 7"])
				if err != nil {
					t.Fatal(err)
				}
				mustNot15(ctx, t, major, m, "create table before (i int)")
				if _, errs, code := b.run("cluster", "grant-role", "my-pg", "-u", "Müller 7", "-r", "ReadWrite"); code != 0 {
					t.Fatal(errs)
				}
				must(ctx, t, m, "create table his (i serial); insert into his values (1)")
				w, err := loginTo(ctx, s, db, "myuser", passwords["myuser"])
				if err != nil {
					t.Fatal(err)
				}
				must(ctx, t, w, "create table mine (i serial); insert into his default values; select * from his")
				must(ctx, t, w, "drop table mine")
				_ = m.Close(ctx)
				_ = w.Close(ctx)
				b.run("cluster", "revoke-role", "my-pg", "-u", "Müller 7", "-r", "READWRITE")
			}
			b.want("", `error: account "Müller 7" does not have the role READWRITE`+"\n", exitConflict, "cluster", "revoke-role", "my-pg", "-u", "Müller 7", "-r", "READWRITE")
			b.want("", `error: account "myuser" does not have the role READONLY`+"\nhint: it has READWRITE\n", exitConflict, "cluster", "revoke-role", "my-pg", "-u", "myuser", "-r", "readonly")
			b.want("", `error: account "postgres" is the one that this is done with: it must stay SUPERUSER`+"\n", exitConflict, "cluster", "revoke-role", "my-pg", "-u", "postgres", "-r", "SUPERUSER")
			r, err := login(ctx, s, "reader", passwords["reader"])
			if err != nil {
				t.Fatal(err)
			}
			must(ctx, t, r, "select * from theirs")
			mustNot(ctx, t, r, "insert into theirs values (3)")
			o, err := login(ctx, s, odd, passwords[odd])
			if err != nil {
				t.Fatal(err)
			}
			must(ctx, t, o, "create role x; drop role x")
			for _, c := range []*pgx.Conn{c, r, o} {
				_ = c.Close(ctx)
			}

			out, _, _ := b.run("cluster", "list-accounts", "my-pg")
			for _, row := range []string{`\| myuser +\| READWRITE +\|`, `\| reader +\| READONLY +\|`, `\| postgres +\| SUPERUSER +\|`} {
				if !regexp.MustCompile(row).MatchString(out) {
					t.Errorf("no %s in\n%s", row, out)
				}
			}
			b.want("", "error: account \"nobody\" not found\n", exitNotFound, "cluster", "describe-account", "my-pg", "-u", "nobody")
			b.want("", "error: role \"myuser\" already exists (SQLSTATE 42710)\n", exitFailed, "cluster", "create-account", "my-pg", "-u", "myuser")
			if _, errs, code := b.run("cluster", "revoke-role", "my-pg", "-u", "reader", "--role", "READONLY"); code != 0 {
				t.Errorf("revoke: %d %s", code, errs)
			}
			_, errs, code := b.run("cluster", "delete-account", "my-pg", "-u", "Müller 7", "--auto-approve")
			if want := "error: account \"Müller 7\" owns objects in databases Other db, later\nhint: they are somebody's data: give them to another account first, in each database\n" +
				`next: kbcli cluster connect my-pg -- -d 'Other db' -c 'REASSIGN OWNED BY "Müller 7" TO CURRENT_USER'` + "\n"; errs != want || code != exitFailed {
				t.Errorf("code %d\n%s", code, errs)
			}
			for _, db := range []string{"Other db", "later"} {
				o, err := loginTo(ctx, s, db, "postgres", "")
				if err != nil {
					t.Fatal(err)
				}
				must(ctx, t, o, `REASSIGN OWNED BY "Müller 7" TO CURRENT_USER`)
				_ = o.Close(ctx)
			}
			for _, user := range []string{"myuser", "reader", odd, "Müller 7", long} {
				if out, errs, code := b.run("cluster", "delete-account", "my-pg", "-u", user, "--auto-approve"); code != 0 {
					t.Errorf("delete %s: %d %s%s", user, code, out, errs)
				}
			}
		})
	}
}

func TestDeleteAccountThatOwns(t *testing.T) {
	b, s := scramServer(t, 15)
	s.Exec(t, "create role own login; create table kept (i int); alter table kept owner to own")
	_, errs, code := b.run("cluster", "delete-account", "my-pg", "-u", "own", "--yes")
	want := "error: account \"own\" owns objects in database postgres\nhint: they are somebody's data: give them to another account first, in each database\n" +
		"next: kbcli cluster connect my-pg -- -d postgres -c 'REASSIGN OWNED BY \"own\" TO CURRENT_USER'\n"
	if code != exitFailed || errs != want {
		t.Errorf("code %d, %q", code, errs)
	}
	s.Exec(t, "drop table kept; create table other (i int); grant select on other to own")
	_, errs, code = b.run("cluster", "delete-account", "my-pg", "-u", "own", "--yes")
	want = "error: role \"own\" cannot be dropped because some objects depend on it (SQLSTATE 2BP01)\nhint: privileges for table other\nhint: take its privileges away there with DROP OWNED BY; it owns nothing\n"
	if code != exitFailed || errs != want {
		t.Errorf("code %d, %q", code, errs)
	}
}

// TestRevokeUndoes compares what the catalogs say before a role was given and after it
// was taken away, for a superuser of another name.
func TestRevokeUndoes(t *testing.T) {
	for _, major := range []int{13, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			b, s := scramServer(t, major)
			s.Exec(t, "create role boss superuser login; create role u login; create role later login; create table t (i serial)")
			hba := "local all postgres trust\nlocal all boss trust\n"
			if err := os.WriteFile(filepath.Join(s.DataDir, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
				t.Fatal(err)
			}
			s.Reload(t)
			b.admin = strings.ReplaceAll(b.admin, "user=postgres", "user=boss")
			c, err := pgx.Connect(t.Context(), b.admin)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(t.Context())
			look := func() (out string) {
				t.Helper()
				err := c.QueryRow(t.Context(), `select concat_ws(' ',
					(select count(*) from pg_namespace, aclexplode(nspacl) a where a.grantee = 'u'::regrole),
					(select count(*) from pg_class, aclexplode(relacl) a where a.grantee = 'u'::regrole),
					(select count(*) from pg_default_acl, aclexplode(defaclacl) a where a.grantee = 'u'::regrole),
					(select count(*) from pg_auth_members where member = 'u'::regrole),
					(select rolsuper from pg_roles where rolname = 'u'), current_user)`).Scan(&out)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			before := look()
			if !strings.HasSuffix(before, " boss") {
				t.Fatalf("this is done by %s", before)
			}
			for _, role := range []string{roleReadOnly, roleReadWrite, roleSuperuser} {
				if _, errs, code := b.run("cluster", "grant-role", "my-pg", "-u", "u", "-r", role); code != 0 {
					t.Fatalf("%s: %s", role, errs)
				}
				if look() == before {
					t.Errorf("%s changed nothing", role)
				}
				if _, errs, code := b.run("cluster", "revoke-role", "my-pg", "-u", "u", "-r", role); code != 0 {
					t.Fatalf("%s: %s", role, errs)
				}
				if now := look(); now != before {
					t.Errorf("%s taken away leaves %s, and it was %s", role, now, before)
				}
			}
		})
	}
}
