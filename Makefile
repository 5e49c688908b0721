# Needed: Go and make. 'make lint' also needs golangci-lint ('make tools' installs it), RACE=1 a C compiler, 'make chart'
# helm and kubeconform ('make chart-tools').

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
DIR ?=
FUZZTIME ?= 10s
LIVES ?= 100000
DURATION ?=
ORPHANS ?= 100000
REAL_LIVES ?= 100
ROUNDS ?= 100
ONLY ?=
MINUTES ?= 2
FLAGS ?=
# For make test: RACE=1 builds the tests, and the programs they start, with the race detector; COVER=1 counts statements.
RACE ?=
COVER ?=
# TESTFLAGS goes to every 'go test' of test, docker-test and compose-test, for instance TESTFLAGS='-v -count=1'.
TESTFLAGS ?=
IMAGE ?= rollup-entrypoint
TESTNET_IMAGE ?= rollup-testnet
NETWORK_IMAGE ?= rollup-testnet-network
# Compose v2 if it is installed, else docker-compose 1.29.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
# For instance PROFILES=monitoring.
PROFILES ?=
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
# Two builds of one commit must be equal, so the commit's time is the time of the build.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# For make image, for instance --no-cache, --platform linux/arm64 --build-arg TARGETARCH=arm64.
BUILDFLAGS ?=

# How the program is built. The guards read these three lines, so they judge what is shipped.
# nethttpomithttp2 saves 570 kB. -buildvcs=false: VERSION has the commit, and a .git of another owner is no error.
# Without inlining in packages whose code is not called often, the program is 520 kB smaller. crypto/tls comes with
# net/http and is never used. Functions that begin at multiples of 16 bytes, as C compilers have it on x86-64, save 90 kB
# against Go's 32.
GO_TAGS := nethttpomithttp2
GO_FLAGS := -trimpath -buildvcs=false -gcflags=crypto/...=-l -gcflags=net/...=-l -gcflags=net=-l -gcflags=rollup-entrypoint/...=-l -gcflags=github.com/...=-l -gcflags=golang.org/...=-l -gcflags=unicode/...=-l -gcflags=vendor/...=-l -gcflags=encoding/...=-l -gcflags=mime/...=-l -gcflags=math/big=-l -gcflags=log/...=-l -gcflags=fmt=-l -gcflags=time=-l -gcflags=reflect=-l -gcflags=context=-l -gcflags=bufio=-l -gcflags=compress/...=-l -gcflags=strings=-l -gcflags=bytes=-l -gcflags=strconv=-l -gcflags=syscall=-l -gcflags=hash/...=-l -gcflags=math/rand/...=-l -gcflags=sync=-l -gcflags=internal/poll=-l
GO_LDFLAGS := -s -w -funcalign=16

LINT_VERSION := v2.15.0
# The programs that 'make chart' runs.
HELM_VERSION := v3.22.0
KUBECONFORM_VERSION := v0.8.0
# The packages whose statements COVER=1 counts, and the percentage of them that the tests of each package must run.
COVER_PACKAGES := sequencer sequencer/checkpoint sequencer/plan sequencer/sovereign reaper
COVER_MINIMUM := 90
# The packages whose tests count. Programs that other tests start would write notes about coverage to stderr.
COVER_TESTS := ./sequencer/... ./test/simulation ./reaper
# The tests of the whole program: they take longest, so they begin first.
PROGRAM_TESTS := ./test/program
# Those of them that do less under the race detector.
PLAIN_TESTS := '^Test(Killed|Failed)AtAnySystemCall'

# Tests are static, as the program is. Only the race detector needs cgo.
export CGO_ENABLED := 0

# A build inside an image gets its modules from where the builds outside get theirs.
image_build = docker build $(BUILDFLAGS) --build-arg VERSION='$(VERSION)' --build-arg REVISION='$(REVISION)' \
	--build-arg SOURCE_DATE_EPOCH='$(SOURCE_DATE_EPOCH)' --build-arg CREATED="$$(date -u -d '@$(SOURCE_DATE_EPOCH)' +%Y-%m-%dT%H:%M:%SZ)" \
	--build-arg GOPROXY="$$(go env GOPROXY 2>/dev/null)"

comma := ,
module := $(shell sed -n 's/^module //p' go.mod)
go_build = go build $(GO_FLAGS) -tags $(GO_TAGS) -ldflags '$(GO_LDFLAGS) -X main.version=$(VERSION)'
# A signal that is ignored here, as SIGHUP is below nohup, would be ignored in every program that the tests start. Only
# GNU's env(1) can undo that; without it the tests run with the signals as they are.
default_signals := $(shell env --default-signal true 2>/dev/null && echo env --default-signal)
go_test = $(default_signals) go test -tags $(GO_TAGS)
gotest = $(go_test) $(TESTFLAGS)

.DEFAULT_GOAL := help
.PHONY: help build run bases image testnet-image testnet testnet-status testnet-down rehearse compose-test docker-test e2e-kubernetes e2e-ipv4 e2e-ipv6 chart chart-tools test all-tests covered-tests other-tests plain-tests bench-handoff bench-undo bench-healthcheck fuzz simulate mutants kill-matrix power-cuts hostile soak lint guards tools clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

build: ## build bin/entrypoint and bin/mock-rollup, static and stripped
	$(go_build) -o bin/ ./cmd/...

# The shell becomes the entrypoint, so that Ctrl-C has one receiver besides make.
run: build ## watch three versions of a stand-in node being upgraded, until Ctrl-C; DIR=... resumes
	@dir='$(DIR)'; [ -n "$$dir" ] || dir=$$(mktemp -d "$${TMPDIR:-/tmp}/rollup-demo-XXXXXX") || exit 1; \
	bin/mock-rollup demo --dir "$$dir" || exit 1; \
	printf '\nStop with Ctrl-C; resume with: make run DIR=%s\n\n' "$$dir"; \
	exec bin/entrypoint run -c "$$dir/manager.json" -f "$$dir/checkpoint.json"

bases: ## pull the base images of images/ that are missing, or make stand-ins if no registry can be reached
	@.ci/bases

image: bases ## build the images rollup-entrypoint and rollup-testnet; then: docker run -it -v demo:/data rollup-testnet
	$(image_build) -f images/entrypoint.Dockerfile -t $(IMAGE) .
	$(image_build) -f images/testnet.Dockerfile -t $(TESTNET_IMAGE) .

testnet = TESTNET_IMAGE='$(NETWORK_IMAGE)' COMPOSE_PROFILES='$(PROFILES)' $(COMPOSE) -f compose/compose.yaml -p rollup-testnet
testnet_status = go run $(GO_FLAGS) -tags $(GO_TAGS) ./compose/testnet

# The programs are not those in bin/, because the engine may run on another machine: Docker Desktop's is always Linux.
network := bin/$(subst /,-,$(NETWORK_IMAGE))
testnet-image: export GOOS = linux
testnet-image: export GOARCH = $(shell docker version --format '{{.Server.Arch}}')
testnet-image: ## build the image of the nodes of the local network
	rm -rf $(network)
	$(go_build) -o $(network)/programs/ ./cmd/...
	images/testnet.sh $(network)/programs compose/plan $(network)/image
	docker build -q -f compose/Dockerfile --label org.opencontainers.image.version='$(VERSION)' \
		--label org.opencontainers.image.revision='$(REVISION)' -t $(NETWORK_IMAGE) $(network)/image

# The program that prints the table is built before the network starts, so that no upgrade is missed meanwhile.
testnet: testnet-image ## start a local network of three nodes that upgrade twice within a minute; with PROFILES=monitoring
	@go build $(GO_FLAGS) -tags $(GO_TAGS) -o bin/ ./compose/testnet
	$(testnet) up -d
	@bin/testnet --wait 2m
	@printf '\nWaiting for the upgrades to v1 and v2; Ctrl-C does not stop the network\n\n'
	@bin/testnet --wait 3m --version v2
	@printf '\nShow the table again: make testnet-status; remove everything: make testnet-down\n'

testnet-status: ## show a table of the network's nodes; fails if their state roots differ
	@$(testnet_status)

testnet-down: ## stop the network and remove its volumes
	$(testnet) --profile monitoring down -v

rehearse: testnet-image ## rehearse the upgrades of the stand-in, or of your image, plan and faults: make rehearse FLAGS='--help'
	@TESTNET_IMAGE='$(NETWORK_IMAGE)' go run $(GO_FLAGS) -tags $(GO_TAGS) ./compose/rehearse $(FLAGS)

# Tests of containers mostly wait, so more of them than processors run at once.
compose-test docker-test: export DOCKER_TESTS := 1
compose-test: bases ## run the tests of the local network on a real Docker engine, with each Compose that is installed
	$(gotest) -count=1 -parallel 3 -timeout 40m ./test/composetest ./test/rehearsaltest

docker-test: bases ## run the tests of the images on a real Docker engine
	$(gotest) -count=1 -parallel 3 -timeout 40m ./test/dockertest

chart: export CHART_TESTS := 1
chart: ## run the tests of the Helm chart, without a cluster: lint, schema, objects, README
	@PATH="$$PATH:$$(go env GOPATH)/bin"; $(gotest) -count=1 ./charts/... ./test/charttest/...

chart-tools: ## install helm and kubeconform, in the versions that CI uses
	go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)
	go install github.com/yannh/kubeconform/cmd/kubeconform@$(KUBECONFORM_VERSION)

e2e-kubernetes: e2e-ipv4 e2e-ipv6 ## as root, run the tests of the chart on a real Kubernetes; .ci/kubernetes installs what they need

# Scenarios mostly wait for blocks, so more of them than processors run at once.
in_cluster = PATH="$$PATH:$$(go env GOPATH)/bin" test/kubernetes/cluster $(gotest) -count=1 -parallel 8 -timeout 40m
e2e-ipv4 e2e-ipv6: export DOCKER_TESTS := 1
e2e-ipv4 e2e-ipv6: export KUBERNETES_TESTS := 1
e2e-ipv4:
	$(in_cluster) ./test/kubernetes

# A cluster in which nothing has an IPv4 address but loopback.
e2e-ipv6: export FAMILY := ipv6
e2e-ipv6:
	$(in_cluster) -run '^TestIPv6' ./test/kubernetes

test: $(if $(COVER),covered-tests other-tests,all-tests) $(if $(RACE),plain-tests) ## run all tests; RACE=1: with the race detector; COVER=1: count statements, fails below 90 % of a package

race := $(if $(RACE),-race)
all-tests covered-tests other-tests: export CGO_ENABLED := $(if $(RACE),1,0)

all-tests:
	$(gotest) $(race) -timeout 40m $(PROGRAM_TESTS) ./...

# Programs that the tests start count too, if they are the test binary.
covered-tests:
	$(gotest) $(race) -timeout 40m -coverpkg=$(subst $() $(),$(comma),$(addprefix ./,$(COVER_PACKAGES))) -coverprofile=cover.out $(COVER_TESTS)
	@LC_ALL=C awk -v packages='$(COVER_PACKAGES)' -v module='$(module)' -v minimum=$(COVER_MINIMUM) -f .ci/cover.awk cover.out

other-tests:
	@all=$$(go list -tags $(GO_TAGS) ./...) && covered=$$(go list -tags $(GO_TAGS) $(COVER_TESTS)) && \
	$(gotest) $(race) -timeout 40m $(PROGRAM_TESTS) $$(echo "$$all" | grep -vxF "$$covered")

plain-tests:
	$(gotest) -timeout 40m -run $(PLAIN_TESTS) $(PROGRAM_TESTS)

bench-handoff: ## measure from one version's exit to the next one's exec, over 50 upgrades
	$(go_test) -run '^$$' -bench Handoff -benchtime 1x ./test/program

bench-undo: ## measure the copy of a state against 'cp --sparse=always', on the file system of TMPDIR
	$(go_test) -run '^$$' -bench Copy -benchtime 1x ./internal/undo

bench-healthcheck: ## measure 'entrypoint healthcheck' from start to exit
	$(go_test) -run '^$$' -bench Healthcheck -benchtime 1x ./test/program

fuzz: ## run each fuzz target of each package for FUZZTIME (10s)
	@.ci/fuzz '$(FUZZTIME)' '$(GO_TAGS)'

simulate: ## run the sequence through LIVES (100000) simulated lives, or for DURATION, and count what happened
	$(go_test) -count=1 -timeout 0 -run '^TestSimulation$$' -v ./test/simulation $(if $(DURATION),-duration $(DURATION),-lives $(LIVES))

# The names of hostile tests begin with TestHostile; the guards check that each is in a package that is run here.
# The figures are in the lines with "orphans", "refused", "starts" and "lives".
hostile: ## as root, attack the program with ORPHANS (100000) orphans, leftovers, rivals, and REAL_LIVES (100) lives with kills
	$(go_test) -count=1 -timeout 40m -v -run '^TestHostile' ./reaper -orphans $(ORPHANS)
	$(go_test) -count=1 -timeout 40m -v -run '^TestHostile' ./test/program -lives $(REAL_LIVES)

power-cuts: ## as root, cut the power of a real ext4 and a real xfs ROUNDS (100) times each, and count what happened
	CI=true $(go_test) -count=1 -timeout 0 -run '^TestPower' -v ./test/program -power-cuts $(ROUNDS)

mutants: ## build in deliberate faults, one at a time, and see which check notices; one alone with ONLY=name
	$(default_signals) go run ./test/mutants $(if $(ONLY),-only $(ONLY))

# A life mostly waits for blocks, so more of them than processors run at once.
kill-matrix: ## kill and stop the program at every system call on the checkpoint, a start or a wait; make the first ones fail
	ENTRYPOINT_KILL_MATRIX=all $(go_test) -count=1 -timeout 0 -parallel 8 -run '^Test(Killed|Failed)AtAnySystemCall' -v ./test/program

soak: ## as root, run one entrypoint and many short lives with real processes and faults for MINUTES (2)
	$(go_test) -count=1 -timeout 0 -run '^TestSoak$$' -v ./test/program -soak $(MINUTES)m

lint: ## run the linters and check the formatting
	@PATH="$$PATH:$$(go env GOPATH)/bin"; \
	command -v golangci-lint >/dev/null || { echo "golangci-lint is missing; try: make tools" >&2; exit 1; }; \
	set -x; golangci-lint run ./... ./.ci/testlog

guards: ## check the program's size, modules and imports, the length of functions, and words in the docs
	$(go_test) -count=1 -v ./test/guards

tools: ## install the linter, in the version that CI uses
	go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

clean: ## remove what make built
	rm -rf bin cover.out
