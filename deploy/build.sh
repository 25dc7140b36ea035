#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds kbcli as one static program: build.sh FILE VERSION. What compresses is C (decision 0012),
# so that another GOARCH wants its compiler as CC. With CGO_ENABLED=0, which is also where there
# is no C compiler, Go compresses, and backups and archiving take nearly twice the CPU.
# The linker's warning of dlopen is about plugins of kustomize, which come with Helm and are not used.
set -euo pipefail
out=$(realpath -m "$1") version=$2
cd "$(dirname "$0")/.."
flags="-s -w -X github.com/kbcli/kbcli/cli.version=$version"
if [ "$(go env CGO_ENABLED)" = 1 ]; then
	if ! echo 'int main(void) { return 0; }' | $(go env CC) -static -xc - -o /dev/null; then
		echo 'C is linked statically: install gcc and libc6-dev (glibc-static elsewhere), or set CGO_ENABLED=0' >&2
		exit 1
	fi
	flags+=' -linkmode external -extldflags -static'
else
	echo 'note: without a C compiler: backups and archiving take nearly twice the CPU' >&2
fi
exec go build -trimpath -tags netgo,osusergo -ldflags "$flags" -o "$out" ./cmd/kbcli
