#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same work beside other tools: bench/run.sh [-quick] [-runs N] [test…]; -h tells of the rest.
# It installs what is missing, and needs root: the servers and the tools run as postgres.
set -euo pipefail
cd "$(dirname "$0")/.."
bench/install
exec go run ./bench "$@"
