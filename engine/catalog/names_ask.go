// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
)

// namesSQL asks for the relations that last longer than a session. Those of catalogues
// whose file may change have it in a map that a function reads. A number of a file is
// taken for an int8: it may be greater than an int4.
const namesSQL = `SELECT c.oid::int8,
	CASE WHEN c.relfilenode = 0 AND c.relkind <> 'p' THEN coalesce(pg_relation_filenode(c.oid), 0) ELSE c.relfilenode END::int8,
	CASE WHEN c.reltablespace = 0 THEN d.dattablespace ELSE c.reltablespace END::int8,
	coalesce(i.indrelid, t.oid, s.refobjid, 0)::int8,
	c.relkind::text, c.reltuples::int8, c.relnamespace::int8, c.relname::text
FROM pg_class c
	JOIN pg_database d ON d.datname = current_database()
	LEFT JOIN pg_index i ON c.relkind IN ('i', 'I') AND i.indexrelid = c.oid
	LEFT JOIN pg_class t ON c.relkind = 't' AND t.reltoastrelid = c.oid
	LEFT JOIN pg_depend s ON c.relkind = 'S' AND s.classid = 'pg_class'::regclass AND s.objid = c.oid AND s.objsubid = 0
		AND s.refclassid = 'pg_class'::regclass AND s.refobjsubid > 0 AND s.deptype IN ('a', 'i')
WHERE c.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'i', 'I', 't', 'm', 'S')`

// AskNames asks a server for its databases, and for the relations of those that are
// wanted or of which last tells nothing, and where its log stood before. Databases that
// cannot be asked are told in the error, beside Names that leave out their relations.
func AskNames(ctx context.Context, l *repository.Lineage, conninfo string, last *Names, wanted func(pg.Oid) bool) (*Names, repository.NamesObject, error) {
	var at repository.NamesObject
	conn, err := client.Connect(ctx, conninfo)
	if err != nil {
		return nil, at, err
	}
	defer conn.Close()
	s, err := conn.Identify(ctx)
	if err != nil {
		return nil, at, err
	}
	if err := l.Check(s.SystemID, s.Version.Major(), s.SegmentSize); err != nil {
		return nil, at, err
	}
	var lsn, here string
	out := &Names{}
	err = conn.SQL().QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text,
		clock_timestamp(), current_database()::text`).Scan(&lsn, &out.Time, &here)
	if err == nil {
		at.LSN, err = pg.ParseLSN(lsn)
	}
	if err != nil {
		return nil, at, fmt.Errorf("ask where the log stands: %w", err)
	}
	at.Timeline = s.Timeline
	rows, _ := conn.SQL().Query(ctx, "SELECT oid::int8, dattablespace::int8, datname::text, datallowconn AND datconnlimit <> -2 FROM pg_database ORDER BY oid")
	var oid, spc int64
	var name string
	var open bool
	type reachable struct {
		place int
		name  string
	}
	var ask []reachable
	_, err = pgx.ForEachRow(rows, []any{&oid, &spc, &name, &open}, func() error {
		if open && (wanted(pg.Oid(oid)) || last.untold(pg.Oid(oid))) {
			ask = append(ask, reachable{len(out.Databases), name})
		}
		out.Databases = append(out.Databases, DatabaseNames{Oid: pg.Oid(oid), Spc: pg.Oid(spc), Name: name})
		return nil
	})
	if err != nil {
		return nil, at, fmt.Errorf("ask for the databases: %w", err)
	}
	var refused []error
	for _, a := range ask {
		if err := ctx.Err(); err != nil {
			return nil, at, err
		}
		d := &out.Databases[a.place]
		c := conn
		if a.name != here {
			info, err := client.With(conninfo, [2]string{"dbname", a.name})
			if err == nil {
				c, err = client.Connect(ctx, info)
			}
			if err != nil {
				refused = append(refused, fmt.Errorf("database %s: %w", a.name, err))
				continue
			}
		}
		rels, err := relations(ctx, c.SQL())
		if c != conn {
			err = errors.Join(err, c.Close())
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("ask for the relations of database %s: %w", a.name, err))
			continue
		}
		d.Relations, d.Told = rels, true
	}
	return out, at, errors.Join(refused...)
}

// untold tells that nothing is known yet of a database.
func (n *Names) untold(db pg.Oid) bool {
	if n == nil {
		return true
	}
	d := n.database(db)
	return d == nil || !d.Told
}

func relations(ctx context.Context, c *pgx.Conn) ([]RelationName, error) {
	schemas := map[int64]string{}
	var oid, file, spc, owner, tuples, schema int64
	var kind, name string
	rows, _ := c.Query(ctx, "SELECT oid::int8, nspname::text FROM pg_namespace")
	_, err := pgx.ForEachRow(rows, []any{&oid, &name}, func() error {
		schemas[oid] = name
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []RelationName
	rows, _ = c.Query(ctx, namesSQL+" ORDER BY c.oid")
	_, err = pgx.ForEachRow(rows, []any{&oid, &file, &spc, &owner, &kind, &tuples, &schema, &name}, func() error {
		if k := len(out); k > 0 && out[k-1].Oid == pg.Oid(oid) {
			return nil // a sequence of two columns
		}
		out = append(out, RelationName{
			Oid: pg.Oid(oid), File: pg.Oid(file), Spc: pg.Oid(spc), Owner: pg.Oid(owner), Kind: kind[0], Rows: tuples,
			Schema: schemas[schema], Name: name,
		})
		return nil
	})
	return out, err
}
