# piBLOOM. `make up` and `make test` do all the set-up that they need.

PORT ?= 8080
GENERATE_PORT ?= 8081
TOKENIZE_PORT ?= 8082
# What `make e2e` deploys: for which cluster, and what model. The demo model is too fast for its long streams, so
# by default it is one of random weights, of BLOOM-560m's shape.
ARCH ?= amd64
MODEL ?=
PYTHON := .venv/bin/python

.PHONY: up test lint bench e2e lock clean help
.DEFAULT_GOAL := help

up: ## serve the chat and both functions on this machine
	@scripts/setup.sh up
	@exec .venv/bin/pibloom up --port "$(PORT)" --generate-port "$(GENERATE_PORT)" --tokenize-port "$(TOKENIZE_PORT)"

test: ## run every check
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory lint
	$(PYTHON) -m pytest --ignore tests/e2e

lint: ## ruff and mypy
	@scripts/setup.sh test
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

bench: ## compare the engine with its peers; measure start-up and memory of each service
	@scripts/setup.sh test
	@bench/setup.sh
	$(PYTHON) -m bench.engine
	$(PYTHON) -m bench.mca
	$(PYTHON) -m bench.startup

e2e: ## deploy to the cluster that KUBECONFIG names, and test it there
	@scripts/setup.sh test
	@[ -z "$$KUBECONFIG" ] || ./build.sh --arch $(ARCH) --overlay local --deploy --model "$(or $(MODEL),$$($(PYTHON) -m bench.weights))"
	$(PYTHON) -m pytest tests/e2e -rs

lock: ## choose versions anew and write them to requirements/
	@scripts/setup.sh test
	@scripts/lock.sh

clean: ## remove what was installed and built
	rm -rf .venv build model/native/libbloom.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

help: ## show this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10
