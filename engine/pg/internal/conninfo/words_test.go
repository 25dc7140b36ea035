// SPDX-License-Identifier: Apache-2.0

package conninfo_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg/internal/conninfo"
)

func TestWith(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", `port=5433 dbname='it\'s'`},
		{"host=/tmp port=1", `host=/tmp port=5433 dbname='it\'s'`},
		{" host = '/a b' \t user=x\\ y dbname=old ", `host='/a b' user='x y' dbname='it\'s' port=5433`},
		{`host='a\'b\\c'`, `host='a\'b\\c' port=5433 dbname='it\'s'`},
		{"postgresql://u@h:1/d?sslmode=disable&host=/tmp", `host=/tmp port=5433 user=u dbname='it\'s' sslmode=disable`},
		{"postgres://%2Fvar%2Frun/d", `host=/var/run dbname='it\'s' port=5433`},
	} {
		got, err := conninfo.With(c.in, [2]string{"port", "5433"}, [2]string{"dbname", "it's"})
		if err != nil || got != c.want {
			t.Errorf("With(%s) = %s, %v; want %s", c.in, got, err, c.want)
			continue
		}
		config, err := pgconn.ParseConfig(got)
		if err != nil || config.Port != 5433 || config.Database != "it's" {
			t.Errorf("pgconn reads %s as port %d, database %q, %v", got, config.Port, config.Database, err)
		}
	}
	for _, in := range []string{"host", "host='x", "ho st=x", "=x", "postgres://[::1/d", "postgres://h/d?a=%zz"} {
		if got, err := conninfo.With(in); err == nil {
			t.Errorf("With(%s) = %s", in, got)
		}
	}
}

func FuzzWith(f *testing.F) {
	f.Add("host=/tmp port=1")
	f.Add(`user='a\'b' dbname=x\ y`)
	f.Add("postgresql://u:p@h:1/d?sslmode=disable")
	f.Fuzz(func(t *testing.T, in string) {
		once, err := conninfo.With(in)
		if err != nil {
			return
		}
		if twice, err := conninfo.With(once); err != nil || twice != once {
			t.Errorf("%q gives %q, and that %q, %v", in, once, twice, err)
		}
	})
}
