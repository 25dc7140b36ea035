// SPDX-License-Identifier: Apache-2.0

package disasters

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/internal/testpg"
)

// story is what sessions did, one step after the other, as they know it themselves:
// which rows each transaction wrote. What became of it the log of the server tells.
type story struct {
	*testing.T
	rand   *rand.Rand
	server *testpg.Server
	clock  *wallClock

	id       int64
	sessions []*session
	prepared []string           // that wait for their second phase
	rows     map[pg.XID][]int64 // by top-level transaction, but those that it rolled back itself
}

// session is one connection and its transaction.
type session struct {
	c    *pgx.Conn
	xid  pg.XID // 0 outside a transaction
	rows []int64
}

func newStory(t *testing.T, seed uint64, s *testpg.Server, clock *wallClock) *story {
	st := &story{T: t, rand: rand.New(rand.NewPCG(seed, 7)), clock: clock, rows: map[pg.XID][]int64{}}
	st.goOn(s)
	return st
}

// goOn has the sessions connect to a server.
func (s *story) goOn(server *testpg.Server) {
	s.Helper()
	s.server, s.sessions = server, nil
	for range 4 {
		s.sessions = append(s.sessions, &session{c: server.Conn(s.T, "postgres")})
	}
}

func (s *story) exec(x *session, sql string) {
	s.Helper()
	if _, err := x.c.Exec(context.Background(), sql); err != nil {
		s.Fatalf("%s: %v", sql, err)
	}
}

// number asks for a transaction identifier.
func (s *story) number(x *session, sql string) pg.XID {
	s.Helper()
	var text string
	if err := x.c.QueryRow(context.Background(), sql).Scan(&text); err != nil {
		s.Fatalf("%s: %v", sql, err)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.Fatal(err)
	}
	return pg.XID(n)
}

// insert writes a row and tells the transaction, or the part of one, that did.
func (s *story) insert(x *session) (int64, pg.XID) {
	s.Helper()
	s.id++
	return s.id, s.number(x, fmt.Sprintf("insert into ledger values (%d, repeat('x', %d)) returning xmin::text", s.id, s.rand.IntN(1500)))
}

// fork is the story as it is now, for a server that goes on from here without what
// others still do; its sessions are not there.
func (s *story) fork() *story {
	o := *s
	o.rows, o.prepared, o.sessions = maps.Clone(s.rows), slices.Clone(s.prepared), nil
	return &o
}

// steps has the sessions do n things.
func (s *story) steps(n int) {
	s.Helper()
	for range n {
		x := s.sessions[s.rand.IntN(len(s.sessions))]
		if x.xid == 0 {
			s.outside(x)
		} else {
			s.inside(x)
		}
	}
}

func (s *story) outside(x *session) {
	s.Helper()
	switch k := s.rand.IntN(24); {
	case k < 8:
		id, xid := s.insert(x)
		s.rows[xid] = append(s.rows[xid], id)
	case k < 17:
		s.exec(x, "begin")
		x.xid = s.number(x, "select pg_current_xact_id()::text")
	case k < 19:
		s.exec(x, fmt.Sprintf("select pg_create_restore_point('point %d')", s.rand.IntN(4)))
	case k < 20:
		s.exec(x, "checkpoint")
	case k < 23 && len(s.prepared) > 0:
		end := "commit"
		if s.rand.IntN(3) == 0 {
			end = "rollback"
		}
		s.exec(x, end+" prepared '"+s.prepared[0]+"'")
		s.prepared = s.prepared[1:]
	case k < 22:
		s.exec(x, "create temp table if not exists nothing ()") // a commit without a row
	default:
		time.Sleep(time.Duration(s.rand.IntN(4000)) * time.Microsecond)
	}
}

func (s *story) inside(x *session) {
	s.Helper()
	switch k := s.rand.IntN(12); {
	case k < 3:
		id, _ := s.insert(x)
		x.rows = append(x.rows, id)
	case k < 6:
		s.exec(x, "savepoint p")
		id, _ := s.insert(x)
		if s.rand.IntN(2) == 0 {
			s.exec(x, "rollback to savepoint p")
		} else {
			s.exec(x, "release savepoint p")
			x.rows = append(x.rows, id)
		}
	case k < 9:
		s.exec(x, "commit")
		s.close(x, true)
	case k < 10:
		s.exec(x, "rollback")
		s.close(x, false)
	default:
		gid := fmt.Sprintf("gid %d", x.xid)
		s.exec(x, "prepare transaction '"+gid+"'")
		s.prepared = append(s.prepared, gid)
		s.close(x, true) // it will be seen
	}
}

// close notes what counts if the transaction does.
func (s *story) close(x *session, counts bool) {
	if counts {
		s.rows[x.xid] = x.rows
	}
	*x = session{c: x.c}
}

// rest ends what is open, half of it by leaving.
func (s *story) rest() {
	s.Helper()
	for _, x := range s.sessions {
		if x.xid != 0 && s.rand.IntN(2) == 0 {
			s.exec(x, "commit")
			s.close(x, true)
		}
	}
}

// turn sets the clock.
func (s *story) turn(by time.Duration) { s.clock.set(s.T, s.clock.offset+by) }

// newTimeline promotes the server where it stands.
func (s *story) newTimeline(settings map[string]string) {
	s.Helper()
	s.rest()
	s.server.Stop(s.T, testpg.Fast)
	s.server.Set(s.T, settings)
	name := filepath.Join(s.server.DataDir, "standby.signal")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		s.Fatal(err)
	}
	if uid, gid := testpg.Owner(s.T); uid >= 0 {
		if err := os.Chown(name, uid, gid); err != nil {
			s.Fatal(err)
		}
	}
	s.clock.while(s.T, func() { s.server.Start(s.T) })
	s.server.Promote(s.T)
	s.goOn(s.server)
}
