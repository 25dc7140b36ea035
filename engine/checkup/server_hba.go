// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// HBARule is a line of pg_hba.conf, as pg_hba_file_rules has it.
type HBARule struct {
	Line             int
	Type             string // local, host, hostssl, hostnossl, hostgssenc, hostnogssenc
	Databases, Users []string
	Address, Netmask string // Address may be all, samehost, samenet or a name
	Method           string
	Options          []string
}

// reaches tells whether a rule is about such a connection. What cannot be told without
// resolving names is taken as no.
func (r *HBARule) reaches(database, user string, f *ServerFacts) bool {
	if f.Local != (r.Type == "local") {
		return false
	}
	db := slices.Contains(r.Databases, database) || database != "replication" && slices.Contains(r.Databases, "all")
	who := slices.Contains(r.Users, "all") || slices.Contains(r.Users, user)
	return db && who && (f.Local || r.hasAddress(f.Client))
}

func (r *HBARule) hasAddress(client string) bool {
	switch r.Address {
	case "all":
		return true
	case "samehost", "samenet":
		return true // whoever reads the data directory is on the server's machine
	}
	at, err := netip.ParseAddr(client)
	net, nerr := netip.ParseAddr(r.Address)
	mask, merr := netip.ParseAddr(r.Netmask)
	if err != nil || nerr != nil || merr != nil || at.BitLen() != net.BitLen() || mask.BitLen() != net.BitLen() {
		return false
	}
	a, n, m := at.AsSlice(), net.AsSlice(), mask.AsSlice()
	for i := range a {
		if a[i]&m[i] != n[i]&m[i] {
			return false
		}
	}
	return true
}

// firstRule is the rule that decides about a connection; nil if none does.
func (f *ServerFacts) firstRule(database string) *HBARule {
	for i := range f.Rules {
		if f.Rules[i].reaches(database, f.User, f) {
			return &f.Rules[i]
		}
	}
	return nil
}

// SQLSTATEs of a refused connection.
const (
	stateNoRule      = "28000"
	stateWrongSecret = "28P01"
	stateTooMany     = "53300"
	stateNotAllowed  = "42501"
	stateNoDatabase  = "3D000"
	stateNotNow      = "57P03" // starting up, or shutting down
)

func checkStream(f *ServerFacts) (Level, string, string) {
	if f.Stream.Err == nil {
		if f.Stream.SystemID != f.Server.SystemID {
			return Fail, fmt.Sprintf("a replication connection leads to another server, with system identifier %s: what answers at this address changes", f.Stream.SystemID),
				"-- connect to the server itself, not to a pooler or a load balancer"
		}
		return Pass, "a replication connection was let in", ""
	}
	evidence := "a replication connection was refused: " + Words(f.Stream.Err)
	var refused *pgconn.PgError
	if !errors.As(f.Stream.Err, &refused) {
		return Fail, evidence, "-- connect to the server itself, not to a pooler, which cannot replicate"
	}
	switch refused.Code {
	case stateNoRule, stateWrongSecret:
		return Fail, evidence, f.mendHBA()
	case stateTooMany:
		// it is refused before the server looks into pg_hba.conf
		if f.Rules != nil {
			if rule := f.firstRule("replication"); rule == nil || rule.Method == "reject" {
				return Fail, "pg_hba.conf has no line that lets role " + f.User + " replicate", f.mendHBA()
			}
		}
		return Warn, "a replication connection could not be tried: " + Words(f.Stream.Err), "-- see wal-senders, and look again"
	case stateNotAllowed:
		return Fail, evidence, "-- see replication-role"
	}
	return Fail, evidence, "-- mend what the server says, and look again"
}

// Words is what the server itself said, on one line.
func Words(err error) string {
	var refused *pgconn.PgError
	text := err.Error()
	if errors.As(err, &refused) {
		text = refused.Message
	}
	return strings.Join(strings.Fields(text), " ")
}

// mendHBA is how to let this role replicate: the rule that let the ordinary connection
// in, for replication as well.
func (f *ServerFacts) mendHBA() string {
	const reload = "SELECT pg_reload_conf();"
	have := f.firstRule("replication")
	like := f.firstRule(f.database())
	if have != nil && like != nil && have.Method == like.Method && have.Method != "reject" {
		return lines("-- pg_hba.conf lets it in as it is now:", reload)
	}
	file := f.HBAFile
	if file == "" {
		file = "pg_hba.conf"
		if f.Data.Directory != "" {
			file = f.Data.Directory + "/pg_hba.conf"
		}
	}
	line := f.replicationLine(like)
	if have != nil {
		// the first that fits is taken
		return lines("sed -i "+shellWord("1i "+line)+" "+shellWord(file), reload)
	}
	return lines("echo "+shellWord(line)+" >> "+shellWord(file), reload)
}

func (f *ServerFacts) replicationLine(like *HBARule) string {
	method, options, kind, address := "scram-sha-256", []string(nil), "host", f.Client+"/32"
	if f.Local {
		kind, address = "local", ""
		if f.Agent == f.User {
			method = "peer"
		}
	} else if strings.Contains(f.Client, ":") {
		address = f.Client + "/128"
	}
	if like != nil && like.Method != "reject" {
		method, kind = like.Method, like.Type
		for _, o := range like.Options {
			if key, _, _ := strings.Cut(o, "="); !strings.Contains(key, "passwd") && !strings.Contains(key, "secret") {
				options = append(options, o)
			}
		}
	}
	words := []string{kind, "replication", identifier(f.User)}
	if address != "" {
		words = append(words, address)
	}
	return strings.Join(append(append(words, method), options...), "  ")
}
