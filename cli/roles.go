// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
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

// grant is the SQL that gives an account a role, or with revoke takes it away.
// It runs in the database postgres, in one transaction.
//
//	SUPERUSER   the attribute
//	READWRITE   14 and later: membership of pg_read_all_data and pg_write_all_data, which
//	            reach every table, view and sequence of every database, now and later
//	            13: select, insert, update, delete on all tables of schema public, and use of
//	            its sequences, now; and of those that roles that exist now make later
//	            all: use of schema public and creating in it
//	READONLY    the reading half of it, and no creating
func grant(role, user string, major int, revoke bool, owners []string) []string {
	verb, to, u := "GRANT", "TO", ident(user)
	if revoke {
		verb, to = "REVOKE", "FROM"
	}
	if role == roleSuperuser {
		if revoke {
			return []string{"ALTER ROLE " + u + " NOSUPERUSER"}
		}
		return []string{"ALTER ROLE " + u + " SUPERUSER"}
	}
	write := role == roleReadWrite
	schema, tables, sequences, member := "USAGE", "SELECT", "SELECT", "pg_read_all_data"
	if write {
		schema, tables, sequences = "USAGE, CREATE", "SELECT, INSERT, UPDATE, DELETE", "USAGE, SELECT, UPDATE"
		member += ", pg_write_all_data"
	}
	sql := []string{fmt.Sprintf("%s %s ON SCHEMA public %s %s", verb, schema, to, u)}
	if major >= 14 {
		return append(sql, fmt.Sprintf("%s %s %s %s", verb, member, to, u))
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

// account is a role that can log in, as lists print it.
type account struct {
	Username string   `json:"username"`
	Role     string   `json:"role"`    // "" is none of ours
	Expired  string   `json:"expired"` // RFC 3339, "" is never
	MemberOf []string `json:"memberOf,omitempty"`
}

// accountQuery works on 13 too, where the roles are seen by the default privileges.
const accountQuery = `
select r.rolname,
       case when r.rolsuper then 'SUPERUSER'
            when exists (select from pg_auth_members m join pg_roles g on g.oid = m.roleid
                         where m.member = r.oid and g.rolname = 'pg_write_all_data')
              or exists (select from pg_default_acl d, aclexplode(d.defaclacl) a
                         where a.grantee = r.oid and d.defaclobjtype = 'r' and a.privilege_type = 'INSERT') then 'READWRITE'
            when exists (select from pg_auth_members m join pg_roles g on g.oid = m.roleid
                         where m.member = r.oid and g.rolname = 'pg_read_all_data')
              or exists (select from pg_default_acl d, aclexplode(d.defaclacl) a
                         where a.grantee = r.oid and d.defaclobjtype = 'r' and a.privilege_type = 'SELECT') then 'READONLY'
            else '' end,
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
		err := r.Scan(&x.Username, &x.Role, &x.Expired, &x.MemberOf)
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

// setRole gives or takes a role.
func setRole(ctx context.Context, c *pgx.Conn, role, user string, revoke bool) error {
	major, err := majorOf(ctx, c)
	if err != nil {
		return err
	}
	owners, err := ownersFor(ctx, c, user, major)
	if err != nil {
		return err
	}
	return inTransaction(ctx, c, grant(role, user, major, revoke, owners))
}

func majorOf(ctx context.Context, c *pgx.Conn) (int, error) {
	var v int
	err := c.QueryRow(ctx, "select current_setting('server_version_num')::int").Scan(&v)
	return v / 10000, err
}

// ownersFor are the roles whose later tables an account is to reach on 13.
func ownersFor(ctx context.Context, c *pgx.Conn, user string, major int) ([]string, error) {
	if major >= 14 {
		return nil, nil
	}
	rows, err := c.Query(ctx, "select rolname::text from pg_roles where rolname !~ '^pg_' and rolname <> $1 order by 1", user)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// dropAccount takes away what grant gave and removes the role. Objects that it
// owns stay, and are an error: they are somebody's data.
func dropAccount(ctx context.Context, c *pgx.Conn, user string) error {
	major, err := majorOf(ctx, c)
	if err != nil {
		return err
	}
	owners, err := ownersFor(ctx, c, user, major)
	if err != nil {
		return err
	}
	return inTransaction(ctx, c, append(grant(roleReadWrite, user, major, true, owners), "DROP ROLE "+ident(user)))
}
