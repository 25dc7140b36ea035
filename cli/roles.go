// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The roles that an account can have.
const (
	roleSuperuser = "SUPERUSER"
	roleReadWrite = "READWRITE"
	roleReadOnly  = "READONLY"
)

func parseRole(s string) (string, error) {
	switch r := strings.ToUpper(s); r {
	case roleSuperuser, roleReadWrite, roleReadOnly:
		return r, nil
	case "":
		return "", usage("missing --role").hints("there are SUPERUSER, READWRITE and READONLY")
	}
	return "", usage("there is no role %q: there are SUPERUSER, READWRITE and READONLY", s)
}

// ident is a name as SQL has it.
func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// grant is the SQL that gives an account a role in one database, or with revoke takes
// it away.
//
//	READWRITE   14 and later: membership of pg_read_all_data and pg_write_all_data, which
//	            reach every table, view and sequence of every database, now and later
//	            13: select, insert, update, delete on all tables of schema public, and use of
//	            its sequences; and of those that the owners make later
//	            all: use of schema public and creating in it
//	READONLY    the reading half of it, and no creating
//
// SUPERUSER and the memberships are the whole server's, and not here.
func grant(role, user string, major int, revoke bool, owners []string) []string {
	verb, to, u := "GRANT", "TO", ident(user)
	if revoke {
		verb, to = "REVOKE", "FROM"
	}
	schema, tables, sequences := "USAGE", "SELECT", "SELECT"
	if role == roleReadWrite {
		schema, tables, sequences = "USAGE, CREATE", "SELECT, INSERT, UPDATE, DELETE", "USAGE, SELECT, UPDATE"
	}
	sql := []string{fmt.Sprintf("%s %s ON SCHEMA public %s %s", verb, schema, to, u)}
	if major >= 14 {
		return sql
	}
	sql = append(sql,
		fmt.Sprintf("%s %s ON ALL TABLES IN SCHEMA public %s %s", verb, tables, to, u),
		fmt.Sprintf("%s %s ON ALL SEQUENCES IN SCHEMA public %s %s", verb, sequences, to, u))
	for _, owner := range owners {
		def := "ALTER DEFAULT PRIVILEGES FOR ROLE " + ident(owner) + " IN SCHEMA public "
		sql = append(sql,
			fmt.Sprintf("%s%s %s ON TABLES %s %s", def, verb, tables, to, u),
			fmt.Sprintf("%s%s %s ON SEQUENCES %s %s", def, verb, sequences, to, u))
	}
	return sql
}

// grantAll is the part of a role that is the whole server's.
func grantAll(role, user string, major int, revoke bool) []string {
	u := ident(user)
	switch {
	case role == roleSuperuser && revoke:
		return []string{"ALTER ROLE " + u + " NOSUPERUSER"}
	case role == roleSuperuser:
		return []string{"ALTER ROLE " + u + " SUPERUSER"}
	case major < 14:
		return nil
	}
	member := "pg_read_all_data"
	if role == roleReadWrite {
		member += ", pg_write_all_data"
	}
	if revoke {
		return []string{"REVOKE " + member + " FROM " + u}
	}
	return []string{"GRANT " + member + " TO " + u}
}

// account is a role that can log in, as lists print it.
type account struct {
	Username string   `json:"username"`
	Role     string   `json:"role"`    // "" is none of ours
	Expired  string   `json:"expired"` // RFC 3339, "" is never
	MemberOf []string `json:"memberOf,omitempty"`

	super, write, read bool // which roles it has
}

func (x *account) has(role string) bool {
	switch role {
	case roleSuperuser:
		return x.super
	case roleReadWrite:
		return x.write
	}
	return x.read && !x.write
}

// accountQuery works on 13 too, where the roles are seen by the default privileges.
const accountQuery = `
select r.rolname::text, r.rolsuper,
       exists (select from pg_auth_members m join pg_roles g on g.oid = m.roleid
               where m.member = r.oid and g.rolname = 'pg_write_all_data')
         or exists (select from pg_default_acl d, aclexplode(d.defaclacl) a
                    where a.grantee = r.oid and a.grantee <> d.defaclrole and d.defaclobjtype = 'r' and a.privilege_type = 'INSERT'),
       exists (select from pg_auth_members m join pg_roles g on g.oid = m.roleid
               where m.member = r.oid and g.rolname = 'pg_read_all_data')
         or exists (select from pg_default_acl d, aclexplode(d.defaclacl) a
                    where a.grantee = r.oid and a.grantee <> d.defaclrole and d.defaclobjtype = 'r' and a.privilege_type = 'SELECT'),
       coalesce(to_char(nullif(r.rolvaliduntil, 'infinity') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), ''),
       array(select g.rolname::text from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid order by 1)
  from pg_roles r
 where r.rolcanlogin and ($1 = '' or r.rolname = $1)
 order by r.rolname`

func accounts(ctx context.Context, c *pgx.Conn, only string) ([]account, error) {
	rows, err := c.Query(ctx, accountQuery, only)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (account, error) {
		var x account
		err := r.Scan(&x.Username, &x.super, &x.write, &x.read, &x.Expired, &x.MemberOf)
		for _, role := range []string{roleSuperuser, roleReadWrite, roleReadOnly} {
			if x.Role == "" && x.has(role) {
				x.Role = role
			}
		}
		return x, err
	})
}

// inTransaction runs statements, all of them or none.
func inTransaction(ctx context.Context, c *pgx.Conn, sql []string) error {
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		for _, s := range sql {
			if _, err := tx.Exec(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// admin is the superuser of a cluster: c is its connection to the database postgres.
type admin struct {
	cluster string
	c       *pgx.Conn
	major   int
	connect func(ctx context.Context, database string) (*pgx.Conn, error)
}

func newAdmin(ctx context.Context, connect func(ctx context.Context, database string) (*pgx.Conn, error)) (*admin, error) {
	c, err := connect(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	x := &admin{c: c, connect: connect}
	var v int
	if err := c.QueryRow(ctx, "select current_setting('server_version_num')::int").Scan(&v); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	x.major = v / 10000
	return x, nil
}

// each runs statements in every database that has a schema public, template1 too: so
// they hold in databases that are made later. A database that is dropped meanwhile is
// passed over.
func (x *admin) each(ctx context.Context, sql func(owners []string) []string, user string) error {
	names, err := texts(ctx, x.c, "select datname::text from pg_database where datallowconn order by datname = 'postgres', 1")
	if err != nil {
		return err
	}
	var owners []string
	if x.major < 14 {
		// tables that these make later are to be reached
		if owners, err = texts(ctx, x.c, "select rolname::text from pg_roles where rolname !~ '^pg_' and rolname <> $1 order by 1", user); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := x.in(ctx, name, sql(owners)); err != nil {
			return fmt.Errorf("in database %s: %w", name, err)
		}
	}
	return nil
}

func (x *admin) in(ctx context.Context, database string, sql []string) error {
	c := x.c
	if database != c.Config().Database {
		var err error
		c, err = x.connect(ctx, database)
		var gone *pgconn.PgError
		if errors.As(err, &gone) && gone.Code == "3D000" {
			return nil
		}
		if err != nil {
			return err
		}
		defer c.Close(context.WithoutCancel(ctx))
	}
	var there bool
	if err := c.QueryRow(ctx, "select exists (select from pg_namespace where nspname = 'public')").Scan(&there); err != nil || !there {
		return err
	}
	return inTransaction(ctx, c, sql)
}

func texts(ctx context.Context, c *pgx.Conn, sql string, args ...any) ([]string, error) {
	rows, err := c.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// setRole gives or takes a role. A role is taken as a whole, and only from who has it.
func (x *admin) setRole(ctx context.Context, role string, user *account, revoke bool) error {
	if revoke && !user.has(role) {
		p := conflict("account %q does not have the role %s", user.Username, role)
		if user.Role == "" {
			return p
		}
		return p.hints("it has %s", user.Role)
	}
	if revoke && role == roleSuperuser {
		var self bool
		if err := x.c.QueryRow(ctx, "select session_user = $1", user.Username).Scan(&self); err != nil {
			return err
		}
		if self {
			return conflict("account %q is the one that this is done with: it must stay SUPERUSER", user.Username)
		}
	}
	if role != roleSuperuser {
		err := x.each(ctx, func(owners []string) []string { return grant(role, user.Username, x.major, revoke, owners) }, user.Username)
		if err != nil {
			return err
		}
	}
	return inTransaction(ctx, x.c, grantAll(role, user.Username, x.major, revoke))
}

// follow13 lets those who have a role reach what a new account will make: on 13 each
// owner is named.
func (x *admin) follow13(ctx context.Context, owner string) error {
	if x.major >= 14 {
		return nil
	}
	all, err := accounts(ctx, x.c, "")
	if err != nil {
		return err
	}
	for _, other := range all {
		for _, role := range []string{roleReadWrite, roleReadOnly} {
			if !other.has(role) || other.Username == owner {
				continue
			}
			err := x.each(ctx, func([]string) []string { return grant(role, other.Username, x.major, false, []string{owner}) }, owner)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// dropAccount takes away what grant gave and removes the role. Objects that it
// owns stay, and are an error: they are somebody's data.
func (x *admin) dropAccount(ctx context.Context, user string) error {
	where, err := texts(ctx, x.c, `select distinct coalesce(d.datname, 'postgres')::text
		from pg_shdepend s left join pg_database d on d.oid = s.dbid
		where s.refclassid = 'pg_authid'::regclass and s.refobjid = $1::text::regrole and s.deptype = 'o'
		and s.classid <> 'pg_default_acl'::regclass order by 1`, ident(user))
	if err != nil {
		return err
	}
	if len(where) > 0 {
		return failed("account %q owns objects in %s", user, databases(where)).
			hints("they are somebody's data: give them to another account first, in each database").
			then("kbcli cluster connect %s -- -d %s -c %s", x.cluster, shellWord(where[0]), shellWord("REASSIGN OWNED BY "+ident(user)+" TO CURRENT_USER"))
	}
	err = x.each(ctx, func(owners []string) []string {
		sql := grant(roleReadWrite, user, x.major, true, owners)
		for _, owner := range owners {
			// what others were to reach of its tables
			def := "ALTER DEFAULT PRIVILEGES FOR ROLE " + ident(user) + " IN SCHEMA public REVOKE ALL ON "
			sql = append(sql, def+"TABLES FROM "+ident(owner), def+"SEQUENCES FROM "+ident(owner))
		}
		return sql
	}, user)
	if err != nil {
		return err
	}
	_, err = x.c.Exec(ctx, "DROP ROLE "+ident(user))
	var e *pgconn.PgError
	if errors.As(err, &e) && e.Code == "2BP01" {
		p := failed("%s (SQLSTATE %s)", e.Message, e.Code).hints("%s\ntake its privileges away there with DROP OWNED BY; it owns nothing", e.Detail)
		p.cause = err
		return p
	}
	return err
}

func databases(names []string) string {
	if len(names) == 1 {
		return "database " + names[0]
	}
	return "databases " + strings.Join(names, ", ")
}

// shellWord is a word that a shell reads as it is.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
