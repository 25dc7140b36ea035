// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
)

// dataset fills a server.
type dataset struct {
	name, about string
	fill        func(ctx context.Context, s *server, quick bool) error
}

var (
	pgbenchData = dataset{"pgbench", "pgbench -i, which compresses 20 : 1", fillPgbench}
	mixedData   = dataset{"mixed", "random bytea, text of 4,000 words, jsonb: compresses badly", fillMixed}
	tablesData  = dataset{"tables", "small tables, four files each", fillTables}
)

// scale gives pgbench's. The pages have room, so that an update stays in its page and
// touches no index: what changes can be told to the page.
func scale(quick bool) int {
	if quick {
		return 18
	}
	return 140
}

func fillPgbench(ctx context.Context, s *server, quick bool) error {
	_, err := s.pgbench(ctx, "-i", "-q", "-F", "90", "-s", fmt.Sprint(scale(quick)))
	return err
}

func fillMixed(ctx context.Context, s *server, quick bool) error {
	k := 600
	if quick {
		k = 80
	}
	_, err := s.query(ctx,
		"create extension pgcrypto",
		"select setseed(0.5)",
		"create table random (id int primary key, b bytea)",
		fmt.Sprintf("insert into random select g, gen_random_bytes(1000) from generate_series(1, %d) g", k*1000),
		"create table words as select g as i, substr(md5(g::text), 1, 3 + g % 8) as w from generate_series(1, 4000) g",
		"create table docs (id int primary key, t text, j jsonb)",
		fmt.Sprintf(`do $$ declare ws text[]; begin
			select array_agg(w order by i) into ws from words;
			insert into docs select g, (select string_agg(ws[1 + floor(3999 * random() ^ 3 + 0 * (g + k))::int], ' ') from generate_series(1, 60) k),
				jsonb_build_object('id', g, 'user', floor(random() * 1e6), 'at', now() - random() * interval '900 days', 'price', round((random() * 1000)::numeric, 2))
			from generate_series(1, %d) g; end $$`, k*800),
		"create index on docs (t)",
		"vacuum")
	return err
}

func fillTables(ctx context.Context, s *server, quick bool) error {
	n := 20000
	if quick {
		n = 2000
	}
	const batch = 500 // each holds its locks until it commits
	for at := 0; at < n; at += batch {
		if _, err := s.query(ctx, fmt.Sprintf(`do $$ begin for i in %d..%d loop
			execute format('create table t%%s (id int primary key, v text)', i);
			execute format('insert into t%%s select g, md5(g::text) from generate_series(1, 20) g', i);
			end loop; end $$`, at+1, at+batch)); err != nil {
			return err
		}
	}
	return nil
}

// filled makes a server with a data set.
func (b *bench) filled(ctx context.Context, d dataset) (*server, error) {
	say("filling %s", d.name)
	s, err := b.newServer(ctx, "d-"+d.name)
	if err != nil {
		return nil, err
	}
	if err := d.fill(ctx, s, b.quick); err != nil {
		return nil, err
	}
	if _, err := s.query(ctx, "vacuum freeze", "checkpoint", "select pg_switch_wal()", "checkpoint"); err != nil {
		return nil, err
	}
	all, _, err := sizeOf(s.data)
	if err != nil {
		return nil, err
	}
	wal, _, err := sizeOf(filepath.Join(s.data, "pg_wal"))
	s.tree = all - wal
	return s, err
}

// files counts those of a data directory.
func (s *server) files() (int, error) {
	n := 0
	err := filepath.WalkDir(s.data, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	})
	return n, err
}

// change updates rows of one in a hundred pages of pgbench_accounts: the nth hundredth
// of them, or every hundredth page, shifted by n. It gives how many pages that are.
func (s *server) change(ctx context.Context, n int, scattered bool) (int64, error) {
	pages, err := s.number(ctx, "select pg_relation_size('pgbench_accounts') / 8192")
	if err != nil {
		return 0, err
	}
	q := fmt.Sprintf("update pgbench_accounts set abalance = abalance + 1 where ctid >= '(%d,1)' and ctid < '(%d,4)' and (ctid::text::point)[1] < 4",
		pages*int64(n)/100, pages*int64(n+1)/100-1)
	if scattered {
		q = fmt.Sprintf("update pgbench_accounts set abalance = abalance + 1 where ctid = any (select format('(%%s,2)', p)::tid from generate_series(%d, %d, 100) p)", (n*7+3)%100, pages-1)
	}
	_, err = s.query(ctx, q, "checkpoint")
	return pages / 100, err
}
