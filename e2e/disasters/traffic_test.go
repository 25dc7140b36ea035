// SPDX-License-Identifier: Apache-2.0

package disasters

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/internal/testpg"
)

const ledgerTable = "create table ledger (id bigint primary key, pad text)"

// entry is one transaction as its client saw it.
type entry struct {
	id    int64
	sent  time.Time
	acked time.Time // zero if it never was
}

// traffic is clients that write.
type traffic struct {
	mu      sync.Mutex
	entries []entry
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// begin starts clients. With pause they rest between transactions, and some of these
// take long or are rolled back.
func begin(t *testing.T, s *testpg.Server, clients int, pause time.Duration) *traffic {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &traffic{stop: stop}
	t.Cleanup(stop)
	for n := range clients {
		c := s.Conn(t, "postgres")
		l.wg.Go(func() {
			for id := int64(n+1) << 32; ctx.Err() == nil; id++ {
				e := entry{id: id, sent: time.Now()}
				committed, err := write(c, id, pause)
				if err == nil && committed {
					e.acked = time.Now()
				}
				if err != nil || committed {
					l.mu.Lock()
					l.entries = append(l.entries, e)
					l.mu.Unlock()
				}
				if err != nil {
					return // the server is gone
				}
				if pause > 0 {
					time.Sleep(time.Duration(rand.Int64N(int64(pause))))
				}
			}
		})
	}
	return l
}

func write(c *pgx.Conn, id int64, pause time.Duration) (committed bool, err error) {
	ctx := context.Background()
	const insert = "insert into ledger values ($1::bigint, repeat(md5($1::bigint::text), 10))"
	kind := rand.IntN(10)
	if pause == 0 || kind > 2 {
		_, err := c.Exec(ctx, insert, id)
		return true, err
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		return false, err
	}
	if _, err = tx.Exec(ctx, insert, id); err != nil {
		return false, err
	}
	time.Sleep(time.Duration(rand.Int64N(int64(4 * pause))))
	if kind == 0 {
		return false, tx.Rollback(ctx)
	}
	return true, tx.Commit(ctx)
}

// end stops the clients and gives what they saw, which must be worth judging by.
func (l *traffic) end(t *testing.T) []entry {
	t.Helper()
	l.stop()
	l.wg.Wait()
	if len(l.entries) < 200 {
		t.Fatalf("only %d commits were sent", len(l.entries))
	}
	return l.entries
}

// stamps are the rows of a server, with the time of the commit that made each as the
// server knows it, if stamped.
func stamps(t *testing.T, s *testpg.Server, stamped bool) map[int64]time.Time {
	t.Helper()
	sql := "select id, now() from ledger"
	if stamped {
		sql = "select id, pg_xact_commit_timestamp(xmin) from ledger"
	}
	rows, err := s.Conn(t, "postgres").Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int64]time.Time{}
	var id int64
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &at}, func() error { out[id] = at; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}
