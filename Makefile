# SPDX-License-Identifier: Apache-2.0

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
PREFIX   ?= /usr/local
FUZZTIME ?= 20s
TESTFLAGS ?=

TOOL := go tool -modfile=tools/go.mod

.PHONY: help
help: ## what make can do here
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  VERSION=$(VERSION)  PREFIX=$(PREFIX)  FUZZTIME=$(FUZZTIME)  TESTFLAGS=$(TESTFLAGS)"

.PHONY: build
build: ## bin/kbcli: everything in one static program
	CGO_ENABLED=0 go build -trimpath -ldflags '-X github.com/kbcli/kbcli/cli.version=$(VERSION)' -o bin/kbcli ./cmd/kbcli

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
	CGO_ENABLED=0 go -C e2e/node/parts vet -trimpath ./...
	go test $(TESTFLAGS) -json ./... | bin/slowest

.PHONY: node
node: ## the programs of a Kubernetes node, kept in the user's cache: 6 minutes the first time
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
	go test $(TESTFLAGS) -count=1 -json ./e2e/... | bin/slowest

.PHONY: bench
bench: build ## Go's benchmarks, then the same work beside other tools (bench/run.sh)
	go test -run '^$$' -bench . -benchmem ./...
	bench/run.sh

.PHONY: generate
generate: ## what is made from the source: deep copies, CRDs, golden files of the docs
	go generate ./...

.PHONY: demo
demo: build ## the page's session on this machine, from the first command to the last
	e2e/demo/demo.sh

.PHONY: clean
clean: ## what make made here
	rm -rf bin dist
