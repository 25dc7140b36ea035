# SPDX-License-Identifier: Apache-2.0

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
PREFIX   ?= /usr/local
FUZZTIME ?= 20s
TESTFLAGS ?=
BENCHCOUNT ?= 6
OLD ?= HEAD~1
NEW ?= HEAD
RESULTS ?= bench/results/latest.json

TOOL := go tool -modfile=tools/go.mod

.PHONY: help
help: ## what make can do here
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  VERSION=$(VERSION)  PREFIX=$(PREFIX)  FUZZTIME=$(FUZZTIME)  TESTFLAGS=$(TESTFLAGS)"

.PHONY: build
build: ## bin/kbcli: everything in one static program
	deploy/build.sh bin/kbcli '$(VERSION)'

.PHONY: install
install: build ## bin/kbcli into PREFIX/bin, below DESTDIR if that is set
	install -D -m 0755 bin/kbcli '$(DESTDIR)$(PREFIX)/bin/kbcli'

.PHONY: deb
deb: build ## dist/kbcli_VERSION_ARCH.deb: the program, its systemd units, completions, a man page
	deploy/deb/build.sh '$(VERSION)' bin/kbcli dist

.PHONY: bin/slowest
bin/slowest:
	@go build -C tools -o ../bin/slowest ./slowest

.PHONY: test
test: bin/slowest node ## vet and every test, e2e too; then the ten slowest. With CI set a skip is a failure
	go vet ./...
	go -C tools vet ./...
	go -C tools test ./...
	go vet -tags long ./e2e/node
	CGO_ENABLED=0 go -C e2e/node/parts vet -trimpath ./...
	CGO_ENABLED=0 go test ./engine/pg ./engine/repository
	go test -timeout 30m $(TESTFLAGS) -json ./... | bin/slowest

.PHONY: node
node: ## what a Kubernetes node for tests is made of, kept in the user's cache: 7 minutes the first time
	go run ./e2e/node build

.PHONY: lint
lint: ## gofumpt and staticcheck, at the versions of tools/go.mod
	@unformatted=$$($(TOOL) gofumpt -l .); \
	if [ -n "$$unformatted" ]; then echo "not gofumpt-ed:"; echo "$$unformatted"; exit 1; fi
	$(TOOL) staticcheck ./...
	@cd tools && go tool staticcheck ./...

.PHONY: format
format: ## gofumpt, in place
	$(TOOL) gofumpt -w .

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME, one after the other
	@targets=$$(grep -rEo --include='*_test.go' --exclude-dir=testdata '^func Fuzz[A-Za-z0-9_]*' . | sort); \
	while IFS=: read -r file func; do \
		echo "== $${file%/*} $${func#func }"; \
		go test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime '$(FUZZTIME)' "$${file%/*}"; \
	done <<< "$$targets"

.PHONY: e2e
e2e: bin/slowest node ## the whole-system tests alone, never from the cache
	go test -timeout 30m $(TESTFLAGS) -count=1 -json ./e2e/... | bin/slowest

.PHONY: long
long: bin/slowest node ## the tests on a Kubernetes node that take a quarter of an hour: disasters, a second node
	go test -timeout 60m $(TESTFLAGS) -count=1 -tags long -json ./e2e/node | bin/slowest

.PHONY: bench
bench: build ## Go's benchmarks, then the same work beside other tools, kept in RESULTS: hours, as root
	go test -run '^$$' -bench . -benchmem ./...
	bench/run.sh -json '$(RESULTS)'

.PHONY: bench-report
bench-report: ## the chart and the README's table from RESULTS
	go run ./bench report '$(RESULTS)' README.md docs/img/bench.svg

# the inner loops: in memory, and over in a minute
BENCH_GO := BenchmarkFeed|BenchmarkPageChecksum|BenchmarkVerifyPage|BenchmarkCompress|BenchmarkDecompress|BenchmarkPack|BenchmarkFiles|BenchmarkDecode|BenchmarkXact|BenchmarkReceive
BENCH_PACKAGES := ./engine/pg ./engine/pg/walscan ./engine/pg/replication ./engine/repository ./engine/repository/walindex ./engine/catalog

.PHONY: bench-go
bench-go: ## the inner loops alone: WAL, pages, frames, seals, lists, indexes
	go test -run '^$$' -bench '^($(BENCH_GO))$$' -benchmem -count $(BENCHCOUNT) $(BENCH_PACKAGES)

.PHONY: bench-diff
bench-diff: ## the inner loops of two commits beside each other: OLD=rev, NEW=rev (default HEAD)
	tools/bench-diff.sh '$(OLD)' '$(NEW)' '^($(BENCH_GO))$$' '$(BENCHCOUNT)' $(BENCH_PACKAGES)

.PHONY: bench-quick
bench-quick: build ## the same work beside other tools with small data: six minutes, as root
	bench/run.sh -quick

.PHONY: bench-index
bench-index: ## what the index costs of archiving, as a share of the CPU without it
	go test -run '^$$' -bench 'BenchmarkIndex$$' -benchtime 8x ./engine/archive

.PHONY: generate
generate: ## deep copies and the CRDs of deploy/helm/crds, from api/v1alpha1
	go generate ./...

.PHONY: demo
demo: build ## the page's session on this machine, from the first command to the last
	e2e/demo/demo.sh

.PHONY: clean
clean: ## what make made here
	rm -rf bin dist
