# The contract is two commands, `go run ./examples/orders` and `go test work`. Everything here is for maintainers.

BIN        := $(CURDIR)/bin
MODULES    := . examples internal/benchmarks internal/conformance
PACKAGES   := ./... ./examples/... ./internal/benchmarks/... ./internal/conformance/...
GOFUMPT    := mvdan.cc/gofumpt@v0.12.0
STATIC     := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI   := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME   ?= 10s
SEEDS      ?= 10

export GOBIN := $(BIN)

.PHONY: help tools check test race fuzz bench tidy generate campaign

help: ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

tools: $(BIN)/gofumpt $(BIN)/staticcheck $(BIN)/golangci-lint ## install the pinned tools into bin/
$(BIN)/gofumpt:
	GOWORK=off go install $(GOFUMPT)
$(BIN)/staticcheck:
	GOWORK=off go install $(STATIC)
$(BIN)/golangci-lint:
	GOWORK=off go install $(GOLANGCI)

check: tools ## format, vet and lint all modules
	@test -z "$$($(BIN)/gofumpt -l .)" || { $(BIN)/gofumpt -d .; exit 1; }
	go vet $(PACKAGES)
	$(BIN)/staticcheck $(PACKAGES)
	$(BIN)/golangci-lint run $(PACKAGES)

test: ## every test of every module
	go test work

race: ## the same under the race detector
	go test -race work

fuzz: ## every fuzz target for FUZZTIME
	@set -e; for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' .); do \
		for t in $$(grep -oE '^func Fuzz[A-Za-z0-9_]*' $$f | cut -d' ' -f2); do \
			echo "== $$f $$t"; (cd $$(dirname $$f) && go test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) .); \
		done; done

bench: ## benchmarks, peers side by side
	cd internal/benchmarks && go test -run '^$$' -bench . -benchmem ./...

tidy: ## go.mod of every module must be tidy
	@set -e; for m in $(MODULES); do echo "== $$m"; (cd $$m && GOWORK=off go mod tidy -diff); done

generate: ## regenerate the protobuf code of the examples
	cd examples && GOWORK=off go generate ./...

campaign: ## the main job over SEEDS full seeds, under the race detector (some minutes)
	TANDEM_CAMPAIGN=$(SEEDS) go test -race -count=1 -timeout 60m -run '^TestCampaign$$' -v ./examples/orders
