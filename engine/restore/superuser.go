// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
)

// usualSuperuser is whom initdb makes unless it is told otherwise. A manifest from
// before superusers were recorded does not say.
const usualSuperuser = "postgres"

// NoSuperuserError says that a restored cluster cannot be opened: at the moment that was
// asked for, no superuser of it was allowed to log in.
type NoSuperuserError struct{}

func (*NoSuperuserError) Error() string {
	return "no superuser of the restored cluster may log in, so that it cannot be opened"
}

func (s *recoverer) connect(ctx context.Context, user, database string) (*client.Conn, error) {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace
	return client.Connect(ctx, fmt.Sprintf("host='%s' port=5432 user='%s' dbname='%s' sslmode=disable application_name=kbcli",
		quote(s.r.Sockets), quote(user), quote(database)))
}

// open connects to the recovered server as a superuser, and notes as whom. It is nil
// without an error while the server does not take connections yet.
//
// The superuser that the manifest names may have been renamed or dropped between the
// backup and the moment that was asked for. The server is then asked by any role that
// lets itself in: their names are in its files.
func (s *recoverer) open(ctx context.Context) (*client.Conn, error) {
	name := s.plan.manifest.Superuser
	if name == "" {
		name = usualSuperuser
	}
	c, err := s.connect(ctx, name, "postgres")
	switch {
	case err == nil:
	case refused(err):
		if c, err = s.letIn(ctx); err != nil {
			return nil, err
		}
	case missingDatabase(err):
		return nil, fmt.Errorf("open the recovered server: %w", err)
	default:
		return nil, nil // if it gives up it exits, and says why
	}
	// as whom it is open now need not be a superuser any more
	const ask = `select rolname::text from pg_roles where rolsuper and rolcanlogin order by rolname <> session_user, oid limit 1`
	var found string
	err = c.SQL().QueryRow(ctx, ask).Scan(&found)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, errors.Join(&NoSuperuserError{}, c.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("ask the recovered server for a superuser: %w", err), c.Close())
	}
	s.superuser = found
	if found == c.SQL().Config().User {
		return c, nil
	}
	if err := c.Close(); err != nil {
		return nil, err
	}
	if c, err = s.connect(ctx, found, "postgres"); err != nil {
		return nil, fmt.Errorf("open the recovered server: %w", err)
	}
	return c, nil
}

// letIn connects as any role that may log in.
func (s *recoverer) letIn(ctx context.Context) (*client.Conn, error) {
	names, err := loginRoles(s.r.DataDirectory)
	if err != nil {
		return nil, fmt.Errorf("look for a superuser of the recovered server: %w", err)
	}
	for _, name := range names {
		c, err := s.connect(ctx, name, "postgres")
		if err == nil {
			return c, nil
		}
		if !refused(err) {
			return nil, fmt.Errorf("open the recovered server: %w", err)
		}
	}
	return nil, &NoSuperuserError{}
}

// refused tells that a server which takes connections does not know the role, or does not
// let it log in.
func refused(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "28000"
}

func missingDatabase(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "3D000"
}

// loginRoles reads the names of the roles that may log in from the files of a server which
// has ended recovery, and so has written all its pages. Superusers come first, and the
// older before the younger. Names are among them that are no more: the server knows.
func loginRoles(data string) ([]string, error) {
	file, err := roleFile(data)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var roles []fileRole
	for page := range slices.Chunk(b, pg.BlockSize) {
		if len(page) == pg.BlockSize {
			roles = append(roles, rolesOfPage(page)...)
		}
	}
	slices.SortStableFunc(roles, func(x, y fileRole) int {
		if x.super != y.super {
			if x.super {
				return -1
			}
			return 1
		}
		return int(int64(x.oid) - int64(y.oid))
	})
	var names []string
	for _, r := range roles {
		if !slices.Contains(names, r.name) {
			names = append(names, r.name)
		}
	}
	return names, nil
}

const oidOfAuthID = 1260 // pg_authid

// roleFile is where pg_authid lies, which VACUUM FULL moves. The format is that of
// PostgreSQL's src/backend/utils/cache/relmapper.c: a magic number, how many, and pairs of
// a relation and its file.
func roleFile(data string) (string, error) {
	path := filepath.Join(data, "global", "pg_filenode.map")
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	const magic = 0x592717
	if len(b) < 8 || binary.LittleEndian.Uint32(b) != magic {
		return "", fmt.Errorf("%s has another format", path)
	}
	n := int(binary.LittleEndian.Uint32(b[4:]))
	for i := range n {
		at := 8 + 8*i
		if at+8 > len(b) {
			break
		}
		if binary.LittleEndian.Uint32(b[at:]) == oidOfAuthID {
			return filepath.Join(data, "global", strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b[at+4:])), 10)), nil
		}
	}
	return "", fmt.Errorf("%s does not name pg_authid", path)
}

// fileRole is a version of a row of pg_authid.
type fileRole struct {
	oid   uint32
	name  string
	super bool
}

// rolesOfPage reads the rows of a page of pg_authid, dead ones too, that may log in. A
// row begins with oid, rolname (64 bytes), rolsuper, rolinherit, rolcreaterole,
// rolcreatedb and rolcanlogin, none of which is ever null.
func rolesOfPage(page []byte) []fileRole {
	const header, name, least = 24, 64, 4 + 64 + 5
	var out []fileRole
	lower := min(int(binary.LittleEndian.Uint16(page[12:])), len(page))
	for at := header; at+4 <= lower; at += 4 {
		item := binary.LittleEndian.Uint32(page[at:])
		from, state, length := int(item&0x7fff), item>>15&3, int(item>>17)
		if state != 1 || length < header || from+length > len(page) {
			continue
		}
		row := page[from : from+length]
		begin := int(row[22]) // t_hoff
		if begin+least > len(row) {
			continue
		}
		row = row[begin:]
		text, _, _ := bytes.Cut(row[4:4+name], []byte{0})
		super, login := row[4+name] == 1, row[4+name+4] == 1
		if login && len(text) > 0 {
			out = append(out, fileRole{binary.LittleEndian.Uint32(row), string(text), super})
		}
	}
	return out
}
