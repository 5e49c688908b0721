# Needed: Go and make. 'make lint' also needs golangci-lint ('make tools' installs it), 'make race' a C compiler.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
DIR ?=
FUZZTIME ?= 10s
LIVES ?= 100000
DURATION ?=
ORPHANS ?= 100000
ROUNDS ?= 100
ONLY ?=
MINUTES ?= 2
FLAGS ?=
# TESTFLAGS goes to every 'go test' of test, race and cover, for instance TESTFLAGS='-v -count=1'.
TESTFLAGS ?=
IMAGE ?= rollup-entrypoint
TESTNET_IMAGE ?= rollup-testnet
NETWORK_IMAGE ?= rollup-testnet-network
# Compose v2 where it is there, else docker-compose 1.29.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
# For instance PROFILES=monitoring.
PROFILES ?=
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
# Two builds of one commit are to be equal, so its time is the time of the build.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# Of make image, for instance --no-cache, --platform linux/arm64 --build-arg TARGETARCH=arm64.
BUILDFLAGS ?=

# How the program is built. The guards read these three lines, so they judge what is shipped.
# nethttpomithttp2 leaves out 570 kB. -buildvcs=false: VERSION says it, and a foreign owner of .git is no error. Without
# inlining in net/http, and in crypto/tls, which comes with it and is never used, it is 260 kB smaller.
GO_TAGS := nethttpomithttp2
GO_FLAGS := -trimpath -buildvcs=false -gcflags=crypto/...=-l -gcflags=net/...=-l
GO_LDFLAGS := -s -w

LINT_VERSION := v2.15.0
# What 'make cover' counts, and how many percent of statements each must have.
COVER_PACKAGES := sequencer sequencer/checkpoint sequencer/plan sequencer/sovereign reaper
COVER_MINIMUM := 90
# Only whose tests can reach them: a program of another package would write its own coverage notes to stderr.
COVER_TESTS := ./sequencer/... ./reaper

# Static, in tests as in the program. Only the race detector needs cgo.
export CGO_ENABLED := 0

# A build inside an image gets its modules from where the builds outside get theirs.
image_build = docker build $(BUILDFLAGS) --build-arg VERSION='$(VERSION)' --build-arg REVISION='$(REVISION)' \
	--build-arg SOURCE_DATE_EPOCH='$(SOURCE_DATE_EPOCH)' --build-arg CREATED="$$(date -u -d '@$(SOURCE_DATE_EPOCH)' +%Y-%m-%dT%H:%M:%SZ)" \
	--build-arg GOPROXY="$$(go env GOPROXY 2>/dev/null)"

comma := ,
module := $(shell sed -n 's/^module //p' go.mod)
go_build = go build $(GO_FLAGS) -tags $(GO_TAGS) -ldflags '$(GO_LDFLAGS) -X main.version=$(VERSION)'
gotest = go test -tags $(GO_TAGS) $(TESTFLAGS)

.DEFAULT_GOAL := help
.PHONY: help build run bases image testnet-image testnet testnet-status testnet-down rehearse compose-test docker-test test race cover bench-handoff bench-healthcheck fuzz simulate mutants kill-matrix power-cuts hostile soak lint guards tools clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

build: ## build bin/entrypoint and bin/mock-rollup, static and stripped
	$(go_build) -o bin/ ./cmd/...

# The shell becomes the entrypoint, so that Ctrl-C has one receiver besides make.
run: build ## watch three versions of a stand-in node being upgraded, until Ctrl-C; goes on with DIR=...
	@dir='$(DIR)'; [ -n "$$dir" ] || dir=$$(mktemp -d "$${TMPDIR:-/tmp}/rollup-demo-XXXXXX") || exit 1; \
	bin/mock-rollup demo --dir "$$dir" || exit 1; \
	printf '\nStop with Ctrl-C; go on with: make run DIR=%s\n\n' "$$dir"; \
	exec bin/entrypoint run -c "$$dir/manager.json" -f "$$dir/checkpoint.json"

bases: ## pull the base images of images/ that are missing, or make stand-ins for them where there is no registry
	@.ci/bases

image: bases ## build the images rollup-entrypoint and rollup-testnet; then: docker run -it -v demo:/data rollup-testnet
	$(image_build) -f images/entrypoint.Dockerfile -t $(IMAGE) .
	$(image_build) -f images/testnet.Dockerfile -t $(TESTNET_IMAGE) .

testnet = TESTNET_IMAGE='$(NETWORK_IMAGE)' COMPOSE_PROFILES='$(PROFILES)' $(COMPOSE) -f compose/compose.yaml -p rollup-testnet
testnet_status = go run $(GO_FLAGS) -tags $(GO_TAGS) ./compose/testnet

# The engine's machine may be another one than ours: Docker Desktop's is always Linux. So the programs are not those of bin/.
network := bin/$(subst /,-,$(NETWORK_IMAGE))
testnet-image: export GOOS = linux
testnet-image: export GOARCH = $(shell docker version --format '{{.Server.Arch}}')
testnet-image: ## build the image of the nodes of the local network
	rm -rf $(network)
	$(go_build) -o $(network)/programs/ ./cmd/...
	images/testnet.sh $(network)/programs compose/plan $(network)/image
	docker build -q -f compose/Dockerfile --label org.opencontainers.image.version='$(VERSION)' \
		--label org.opencontainers.image.revision='$(REVISION)' -t $(NETWORK_IMAGE) $(network)/image

# The program that prints the table is there before the network starts, so that no upgrade is missed while it is built.
testnet: testnet-image ## start a local network of three nodes that upgrade twice within a minute; with PROFILES=monitoring
	@go build $(GO_FLAGS) -tags $(GO_TAGS) -o bin/ ./compose/testnet
	$(testnet) up -d
	@bin/testnet --wait 2m
	@printf '\nWaiting for the upgrades to v1 and v2; Ctrl-C does not stop the network\n\n'
	@bin/testnet --wait 3m --version v2
	@printf '\nLook again: make testnet-status; remove all: make testnet-down\n'

testnet-status: ## one table over the nodes of the network; fails where their state roots differ
	@$(testnet_status)

testnet-down: ## stop the network and remove its volumes
	$(testnet) --profile monitoring down -v

rehearse: testnet-image ## rehearse the upgrades of the stand-in, or of your image, plan and faults: make rehearse FLAGS='--help'
	@TESTNET_IMAGE='$(NETWORK_IMAGE)' go run $(GO_FLAGS) -tags $(GO_TAGS) ./compose/rehearse $(FLAGS)

compose-test: export DOCKER_TESTS := 1
compose-test: bases ## run the tests of the local network on a real Docker engine, with each Compose that is there
	$(gotest) -count=1 -p 1 -timeout 40m ./compose/composetest ./compose/rehearsaltest

docker-test: export DOCKER_TESTS := 1
docker-test: bases ## run the tests of the images on a real Docker engine
	$(gotest) -count=1 -timeout 40m ./images/dockertest

test: ## run all tests
	$(gotest) ./...

race: export CGO_ENABLED := 1
race: ## run all tests with the race detector
	$(gotest) -race ./...

# Programs that the tests start count too, where they are the test binary.
cover: ## count the statements that the tests run; fails below 90 % of a package
	$(gotest) -coverpkg=$(subst $() $(),$(comma),$(addprefix ./,$(COVER_PACKAGES))) -coverprofile=cover.out $(COVER_TESTS)
	@LC_ALL=C awk -v packages='$(COVER_PACKAGES)' -v module='$(module)' -v minimum=$(COVER_MINIMUM) -f .ci/cover.awk cover.out

bench-handoff: ## measure from the exit of one version to the exec of the next, over 50 upgrades
	go test -tags $(GO_TAGS) -run '^$$' -bench Handoff -benchtime 1x ./cmd/entrypoint

bench-healthcheck: ## measure 'entrypoint healthcheck' from its start to its exit
	go test -tags $(GO_TAGS) -run '^$$' -bench Healthcheck -benchtime 1x ./cmd/entrypoint

fuzz: ## run each fuzz target of each package for FUZZTIME (10s)
	@.ci/fuzz '$(FUZZTIME)' '$(GO_TAGS)'

simulate: ## run the sequence through LIVES (100000) simulated lives, or as many as fit into DURATION, and count what happened
	go test -tags $(GO_TAGS) -count=1 -timeout 0 -run '^TestSimulation$$' -v ./sequencer/simulation $(if $(DURATION),-duration $(DURATION),-lives $(LIVES))

# A hostile test is one that is called TestHostile…; the guards check that each is in a package that is run here.
# The figures are in the lines with "orphans", "refused" and "starts".
hostile: ## set hostile processes on the program: ORPHANS (100000) orphans, leftovers, stopped nodes, rivals; as root
	go test -tags $(GO_TAGS) -count=1 -v -run '^TestHostile' ./reaper -orphans $(ORPHANS)
	go test -tags $(GO_TAGS) -count=1 -v -run '^TestHostile' ./cmd/entrypoint

power-cuts: ## cut the power of a real ext4 and a real xfs ROUNDS (100) times each, as root, and count what happened
	CI=true go test -tags $(GO_TAGS) -count=1 -timeout 0 -run '^TestPower' -v ./cmd/entrypoint -power-cuts $(ROUNDS)

mutants: ## build deliberate faults in, one at a time, and look which check notices; one alone with ONLY=name
	go run ./internal/mutants $(if $(ONLY),-only $(ONLY))

# Most of a life is waiting for blocks, so that more of them fit beside each other than there are processors.
kill-matrix: ## kill and stop the program at every system call on the checkpoint, a start or a wait; fail each of the first
	ENTRYPOINT_KILL_MATRIX=all go test -tags $(GO_TAGS) -count=1 -timeout 0 -parallel 8 -run '^Test(Killed|Failed)AtAnySystemCall' -v ./cmd/entrypoint

soak: ## run one entrypoint and many short lives with real processes and faults for MINUTES (2), as root
	go test -tags $(GO_TAGS) -count=1 -timeout 0 -run '^TestSoak$$' -v ./cmd/entrypoint -soak $(MINUTES)m

lint: ## run the linters and check the formatting
	@PATH="$$PATH:$$(go env GOPATH)/bin"; \
	command -v golangci-lint >/dev/null || { echo "golangci-lint is missing; try: make tools" >&2; exit 1; }; \
	set -x; golangci-lint run ./... ./.ci/testlog

guards: ## check size, modules, imports and dead-code elimination of the program
	go test -tags $(GO_TAGS) -count=1 -v ./internal/guards

tools: ## install the linter, at the version that CI uses
	go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

clean: ## remove what make has built
	rm -rf bin cover.out
