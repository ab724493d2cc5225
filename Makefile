# piBLOOM. Each target does all the set-up that it needs.

PORT ?= 8080
GENERATE_PORT ?= 8081
TOKENIZE_PORT ?= 8082
# What `make up` serves, `make images` builds for, and `make e2e` deploys: for which cluster, and what model. The demo
# model is too fast for e2e's long streams, so by default it is one of random weights, of BLOOM-560m's shape.
ARCH ?= amd64
MODEL ?=
PYTHON := .venv/bin/python
# Most tests wait for a server or compute on one core. A file's tests stay together: they share what they start.
PARALLEL := --numprocesses 2 --dist loadfile

.PHONY: up test test-fast lint format native images architecture bench bench-quality e2e lock clean help
.DEFAULT_GOAL := help

up: ## serve the chat and both functions on this machine: make up MODEL=bigscience/bloomz-560m
	@scripts/setup.sh up
	@exec .venv/bin/pibloom up --port "$(PORT)" --generate-port "$(GENERATE_PORT)" --tokenize-port "$(TOKENIZE_PORT)" $(if $(MODEL),--model "$(MODEL)")

test: lint ## run every check
	$(PYTHON) -m pytest $(PARALLEL) --ignore tests/e2e

test-fast: ## run the tests that need no torch, no browser and no process: a minute
	@scripts/setup.sh test-fast
	$(PYTHON) -m pytest --fast $(PARALLEL) --ignore tests/e2e

lint: ## check what no test checks: Python, C, shell, CSS, JavaScript, Dockerfiles
	@scripts/setup.sh test
	scripts/lint.sh

format: ## format all code
	@scripts/setup.sh test
	$(PYTHON) -m ruff check --fix --quiet .
	$(PYTHON) -m ruff format .
	$(PYTHON) -m scripts.lint_c --fix

native: ## compile the native engine
	@scripts/setup.sh up
	$(PYTHON) -m model.native.build

images: ## build the three images: make images ARCH=arm64 MODEL=bigscience/bloomz-560m
	./build.sh --arch $(ARCH) $(if $(MODEL),--model $(MODEL))

architecture: ## draw docs/architecture.md's imports again
	@scripts/setup.sh up
	$(PYTHON) -m scripts.imports

bench: ## compare the engine with its peers; measure start-up and memory of each service
	@scripts/setup.sh test
	@bench/setup.sh
	$(PYTHON) -m bench.engine
	$(PYTHON) -m bench.cut
	$(PYTHON) -m bench.mca
	$(PYTHON) -m bench.startup

bench-quality: ## measure what rounding costs, beside llama.cpp's formats
	@scripts/setup.sh test
	@bench/llama_cpp.sh
	$(PYTHON) -m bench.quality

e2e: ## deploy to the cluster that KUBECONFIG names, and test it there
	@scripts/setup.sh test
	@[ -z "$$KUBECONFIG" ] || ./build.sh --arch $(ARCH) --overlay local --deploy --model "$(or $(MODEL),$$($(PYTHON) -m bench.weights))"
	$(PYTHON) -m pytest tests/e2e -rs

lock: ## write all lock files again; UPGRADE=1 chooses the newest versions
	@scripts/setup.sh test
	$(PYTHON) -m scripts.lock $(if $(UPGRADE),--upgrade)

clean: ## remove what was installed and built
	rm -rf .venv build model/native/libbloom.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14
