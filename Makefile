.PHONY: help build test quick sim e2e race bench lint verify dev

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

build: ## the binary, at bin/rota
	CGO_ENABLED=0 go build -trimpath -o bin/rota ./cmd/rota

dev: ## everything in one process
	go run ./cmd/rota dev

test: ## all tests: vet, race, simulator, real processes
	bash .ci/run

quick: ## what needs no cluster of processes
	go test $$(go list ./... | grep -v /e2e)

race: ## the same under the race detector
	go test -race $$(go list ./... | grep -v -e /e2e -e /simtest)

sim: ## 3 000 simulated clusters with faults, and every mutant
	go test ./internal/simtest -seeds 3000 -timeout 15m -v

e2e: ## real processes, really killed
	go test ./e2e -v -timeout 10m

bench: ## throughput, lateness, planner; prints a table, raw data in bench/out
	go run ./bench

lint: ## golangci-lint, with the reasons in .golangci.yml
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run

verify: lint test ## what a change must pass
