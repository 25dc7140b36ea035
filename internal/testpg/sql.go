// SPDX-License-Identifier: Apache-2.0

package testpg

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// ConnString connects to a database of the server as its superuser, over the socket.
func (s *Server) ConnString(db string) string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s connect_timeout=10", s.SocketDir, s.Port, db)
}

// Conn is a new connection, closed when the test ends.
func (s *Server) Conn(t testing.TB, db string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(context.Background(), s.ConnString(db))
	if err != nil {
		t.Fatalf("testpg: %v", err)
	}
	t.Cleanup(func() { closeConn(c) })
	return c
}

// Exec runs SQL in the database postgres: one statement, or several between
// semicolons that then are one transaction.
func (s *Server) Exec(t testing.TB, sql string) {
	t.Helper()
	s.ExecIn(t, "postgres", sql)
}

// ExecIn is Exec in another database.
func (s *Server) ExecIn(t testing.TB, db, sql string) {
	t.Helper()
	if _, err := s.shared(t, db).PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		t.Fatalf("testpg: %v\n%s", err, sql)
	}
}

// QueryRow reads the one row of a query in the database postgres into dest.
func (s *Server) QueryRow(t testing.TB, sql string, dest ...any) {
	t.Helper()
	if err := s.shared(t, "postgres").QueryRow(context.Background(), sql).Scan(dest...); err != nil {
		t.Fatalf("testpg: %v\n%s", err, sql)
	}
}

// shared is the connection to db that Exec and QueryRow use; it outlives them
// until the server stops.
func (s *Server) shared(t testing.TB, db string) *pgx.Conn {
	t.Helper()
	if c := s.conns[db]; c != nil && !c.IsClosed() {
		return c
	}
	c, err := pgx.Connect(context.Background(), s.ConnString(db))
	if err != nil {
		t.Fatalf("testpg: %v", err)
	}
	s.conns[db] = c
	return c
}

// Disconnect closes the connections that Exec and QueryRow left open, for what
// needs a database without users.
func (s *Server) Disconnect() { s.closeConns() }

func (s *Server) closeConns() {
	for db, c := range s.conns {
		closeConn(c)
		delete(s.conns, db)
	}
}

func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = c.Close(ctx) // the server may be gone already
}
