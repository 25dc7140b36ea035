#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Plays a session with a real PostgreSQL in a state directory of its own, which is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec 2>&1 # what a person sees on a terminal, in its order
kbcli=$PWD/bin/kbcli

state=$(mktemp -d /tmp/kbdemo.XXXXXX)
chmod 755 "$state"
export KBCLI_STATE_DIR=$state TZ=${TZ:-Asia/Shanghai}

finish() {
	code=$?
	trap - EXIT
	if [ -f "$state/agent.pid" ]; then
		agent=$(cat "$state/agent.pid")
		kill "$agent" 2>/dev/null || true
		while kill -0 "$agent" 2>/dev/null; do sleep 0.05; done
	fi
	for pid in "$state"/clusters/*/*/data/postmaster.pid; do
		[ -f "$pid" ] && kill -QUIT "$(head -n 1 "$pid")" 2>/dev/null || true
	done
	sleep 0.2
	if [ $code -ne 0 ]; then
		echo "the demo failed; the agent's last lines:" >&2
		tail -n 20 "$state/agent.log" >&2 || true
	fi
	rm -rf "$state"
	exit $code
}
trap finish EXIT

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() {
	printf '$ kbcli'
	for word in "$@"; do
		case $word in *' '*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
	done
	echo
	"$kbcli" "$@"
}
sql() { # cluster, statement: as myuser
	echo "$1=> $2"
	echo "$2" | PGPASSWORD=$password "$kbcli" cluster connect "$1" --as-user myuser
}

say "A PostgreSQL of our own, from the programs installed on this machine"
run cluster create my-pg
run cluster list-backup-policy

say "Archive its WAL, continuously"
run cluster edit-backup-policy my-pg-postgresql-backup-policy --set schedule.logfile.enable=true

say "A first backup: from its end on every moment can be gone back to"
run cluster backup my-pg --wait
run cluster list-backup

say "An account to work with"
out=$(run cluster create-account my-pg --username myuser 2>&1)
echo "$out"
password=$(sed -n 's/.*with password: \([A-Za-z0-9]*\) .*/\1/p' <<<"$out")
run cluster grant-role my-pg --username myuser --role READWRITE

say "One row, then a moment to remember, then another row"
sql my-pg "create table if not exists msg(id SERIAL PRIMARY KEY, msg text, time timestamp); insert into msg (msg, time) values ('hello', now());"
sleep 2
moment=$(date '+%b %d,%Y %H:%M:%S UTC%z')
echo "the moment: $moment"
sleep 2
sql my-pg "insert into msg (msg, time) values ('hello', now());"
sql my-pg "select * from msg;"

say "What can be reached?"
sleep 2
run cluster describe my-pg

say "Back to the moment, beside the original"
run cluster restore new-cluster --restore-to-time "$moment" --source-cluster my-pg --wait

say "The first row came back, the second did not; the original has both"
sql new-cluster "select * from msg;"
sql my-pg "select count(*) from msg;"
rows=$(echo "select count(*) from msg" | PGPASSWORD=$password "$kbcli" cluster connect new-cluster --as-user myuser | sed -n 3p | tr -d ' ')
[ "$rows" = 1 ] || { echo "expected 1 row in new-cluster, found $rows" >&2; exit 1; }

say "A moment that nobody can give back is refused, with the reason"
run cluster restore too-early --restore-to-time "Apr 17,2023 19:56:40 UTC+0800" --source-cluster my-pg || echo "(exit code $?)"

say "Clean up: deleting a cluster keeps its backups, until they are deleted too"
run cluster delete my-pg --auto-approve
run cluster delete new-cluster --auto-approve
run cluster list-backup
run cluster delete-backup my-pg --force --auto-approve
run cluster list-backup
