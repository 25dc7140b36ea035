// SPDX-License-Identifier: Apache-2.0

// Package journeys runs kbcli as people do: *.txtar are sessions, typed
// into the program that was built once, against real servers.
//
// Besides testscript's own commands (exec, stdin, stdout, stderr, ttyin, …) there are
//
//	kbcli ARGS…               as exec kbcli
//	until [-match REGEXP] DURATION COMMAND…
//	                          runs a command until it succeeds and its stdout matches
//	capture NAME REGEXP       sets $NAME to the first group, or all, of what the last
//	                          stdout has
//	now NAME                  sets $NAME to this moment, RFC 3339 to the microsecond, UTC
//	sleep DURATION
//	build VERSION FILE        a kbcli that says it is another version
//	stopagent                 kills the agent of the script's state directory, hard;
//	                          the servers outlive it
//	stopservers               kills the servers as well
//	debian                    makes a server as Debian's packages do, $SERVER_NAME with
//	                          $SERVER_DATA, $SERVER_SOCKET, $SERVER_PORT and $SERVER_CONF
//	standby                   makes a standby of it, which then is the $SERVER_…, and it
//	                          the $PRIMARY_…
//	server [as=ACCOUNT] [INITDB-OPTION…]
//	                          makes one as a hand would, which then is the $SERVER_…; it
//	                          trusts everybody
//	moveserver [SOCKET PORT]  restarts that one with another port and socket
//	sql STATEMENT…            runs statements there, as who runs the server or $SERVER_USER
//	mend                      does what the last `cluster attach -o json` says to do
//	s3link open|cut|hang|deny|expire|mend NAME
//	                          $NAME is the URL of a way to the S3 server that can be
//	                          cut, or answer that the key is wrong or has expired, for
//	                          the script alone
//	code N COMMAND…           runs a command that ends with that exit code
//	agekey FILE NAME          makes an age identity, and $NAME what seals for it
//	smalldisk MEGABYTES NAME  $NAME is a new file system of that size
//
// $S3_ENDPOINT, $S3_REGION, $S3_ACCESS_KEY, $S3_SECRET_KEY and $S3_BUCKET are a bucket
// of a real S3 server for the script alone. $PG13_BIN and $PG18_BIN are the programs of
// the oldest and the newest PostgreSQL.
//
// Invariants. Each script has a state directory of its own, $KBCLI_STATE_DIR, with
// a path short enough for sockets and readable by the user postgres. Its time zone
// is Asia/Shanghai, that of the manual. However a script ends, its agent and its
// servers are gone afterwards; their pids are taken from its own state directory.
package journeys
