#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs Go benchmarks of two commits in turn, so that what else the machine does meets both,
# and compares them with benchstat. Each commit is checked out into a directory of its own.
set -euo pipefail

old=$1 new=$2 bench=$3 count=$4
shift 4
root=$(git rev-parse --show-toplevel)
old=$(git rev-parse --short --verify "$old^{commit}")
new=$(git rev-parse --short --verify "$new^{commit}")
work=$(mktemp -d)
trap 'git worktree remove --force "$work/$old" 2>/dev/null || true; git worktree remove --force "$work/$new" 2>/dev/null || true; rm -rf "$work"' EXIT

for rev in "$old" "$new"; do
	[ -d "$work/$rev" ] || git worktree add --quiet --detach "$work/$rev" "$rev"
	mkdir -p "$work/$rev.bin"
	for package in "$@"; do
		# a package that one of them lacks is compared with nothing
		[ -d "$work/$rev/$package" ] && go -C "$work/$rev" test -c -o "$work/$rev.bin/$(tr ./ __ <<< "$package")" "$package"
	done
done
for ((i = 0; i < count; i++)); do
	for rev in "$old" "$new"; do
		for package in "$@"; do
			program=$work/$rev.bin/$(tr ./ __ <<< "$package")
			[ -x "$program" ] || continue
			(cd "$work/$rev/$package" && echo "pkg: $package" && "$program" -test.run '^$' -test.bench "$bench" -test.benchmem) >> "$work/$rev.txt"
		done
	done
done
cd "$root"
go tool -modfile=tools/go.mod benchstat "$old=$work/$old.txt" "$new=$work/$new.txt"
