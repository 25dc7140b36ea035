#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Plays a session with a real PostgreSQL in a state directory of its own, which is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec 2>&1 # what a person sees on a terminal, in its order
kbcli=$PWD/bin/kbcli

state=$(mktemp -d /tmp/kbdemo.XXXXXX)
chmod 755 "$state"
export KBCLI_STATE_DIR=$state KBCLI_SUPERVISOR=process TZ=${TZ:-Asia/Shanghai}
unset KBCLI_CONTEXT PGPASSWORD PGHOST PGPORT PGUSER PGDATABASE

finish() {
	code=$?
	trap - EXIT
	if [ $code -ne 0 ]; then
		echo "the demo failed; the agent's last lines:" >&2
		tail -n 20 "$state/agent.log" >&2 || true
	fi
	"$kbcli" agent stop >/dev/null 2>&1 || true
	for pid in "$state"/clusters/*/*/data/postmaster.pid; do
		[ -f "$pid" ] && kill -QUIT "$(head -n 1 "$pid")" 2>/dev/null || true
	done
	sleep 0.2
	rm -rf "$state"
	exit $code
}
trap finish EXIT

bold='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { # a heading, and lines below it
	printf '\n%s# %s%s\n' "$bold" "$1" "$plain"
	shift
	for line in "$@"; do echo "# $line"; done
}
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
rows() { echo "select count(*) from msg" | PGPASSWORD=$password "$kbcli" cluster connect "$1" --as-user myuser | sed -n 3p | tr -d ' '; }
expect() { # cluster, number of rows
	found=$(rows "$1")
	[ "$found" = "$2" ] || { echo "expected $2 rows in $1, found $found"; exit 1; }
}

cat <<'TEXT'
kbcli gives a PostgreSQL back as it was at any moment of its past. In the next minute a real server is
made, a row is written, a moment passes, another row is written, and the server as it was at
that moment is brought back beside it. Nothing outside a temporary directory is touched.
TEXT
begun=$SECONDS

say "1. A PostgreSQL, from the programs installed on this machine" \
	"One that runs already would be protected with: kbcli cluster attach"
run cluster create my-pg --wait
run cluster list-backup-policy

say "2. Archive its WAL as it is written, and take one backup" \
	"From the end of that backup on, every moment can be gone back to."
run cluster edit-backup-policy my-pg-postgresql-backup-policy --set schedule.logfile.enable=true
run cluster backup my-pg --wait
run cluster list-backup

say "3. An account to work with"
out=$(run cluster create-account my-pg --username myuser 2>&1)
echo "$out"
password=$(sed -n 's/.*with password: \([A-Za-z0-9]*\) .*/\1/p' <<<"$out")
run cluster grant-role my-pg --username myuser --role READWRITE

say "4. One row; a moment to remember; another row"
sql my-pg "create table if not exists msg(id SERIAL PRIMARY KEY, msg text, time timestamp);"
sql my-pg "insert into msg (msg, time) values ('hello', now());"
sleep 2
moment=$(date '+%b %d,%Y %H:%M:%S UTC%z')
printf '\n   %sthe moment: %s%s\n\n' "$bold" "$moment" "$plain"
sleep 2
sql my-pg "insert into msg (msg, time) values ('hello', now());"
sql my-pg "select * from msg;"
sleep 2

say "5. What can be brought back?" "RECOVERABLE-TIME is what the archive has proven, up to about a second ago."
echo '$ kbcli cluster describe my-pg'
"$kbcli" cluster describe my-pg | sed -n '/^Data Protection:/,/^$/p'

say "6. Look before you leap" "The WAL was read as it came in, so the last commit kept and the first one lost are known beforehand."
run cluster restore new-cluster --restore-to-time "$moment" --source-cluster my-pg --dry-run

say "7. Back to the moment, beside the original"
run cluster restore new-cluster --restore-to-time "$moment" --source-cluster my-pg --wait

say "8. The first row came back, the second did not" "It was written after the moment."
sql new-cluster "select * from msg;"
expect new-cluster 1

say "9. The original was not touched"
sql my-pg "select count(*) from msg;"
expect my-pg 2

say "10. A moment that nobody can give back is refused, with what can"
if run cluster restore too-early --restore-to-time "Apr 17,2023 19:56:40 UTC+0800" --source-cluster my-pg; then
	echo "it was not refused"
	exit 1
else
	echo "(exit code $?)"
fi

say "11. Is the backup any good?" "Every byte of it is read back."
backup=$("$kbcli" cluster list-backup -o name | head -n 1)
run cluster verify-backup "${backup##*/}"

say "12. The agent is killed. The server does not notice, and the next command starts another" \
	"WAL waited on the server, so there is no gap."
agent=$(cat "$state/agent.pid")
echo "\$ kill -9 $agent"
kill -9 "$agent"
while kill -0 "$agent" 2>/dev/null; do sleep 0.05; done
sql my-pg "insert into msg (msg, time) values ('nobody was watching', now());"
run cluster list
sleep 3
run cluster restore latest --latest --source-cluster my-pg --wait
sql latest "select * from msg;"
expect latest 3

say "13. Clean up" "Deleting a cluster keeps its backups, until they are deleted too."
run cluster delete my-pg new-cluster latest --auto-approve
run cluster list-backup
run cluster delete-backup my-pg --force --auto-approve

say "That took $((SECONDS - begun)) s. The same, chapter by chapter, with S3, schedules and disasters: docs/guide/README.md"
