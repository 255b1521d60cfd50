# `make help` lists the targets. Nothing is needed but Python 3.11 or newer, git and make.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first Python that is new enough; `make PYTHON=...` decides otherwise.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# Most tests wait most of the time. Those of a module stay together, because they share what they start.
IN_TWO := -n 2 --dist loadscope
# More arguments: `make test-unit ARGS="-k journal -x"`.
ARGS ?=

# An exported KUBECONFIG may point at a cluster that is no place for tests: only `make ... KUBECONFIG=...` counts.
ifeq ($(origin KUBECONFIG),command line)
export TEST_KUBECONFIG := $(KUBECONFIG)
else
unexport KUBECONFIG
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down test test-unit test-integration lint format crds cluster-up cluster-down bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything in it; quick when nothing changed
	@:

$(STAMP): pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; if there is one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing kfp-operator and what it needs into $(VENV) (the first time a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[kubeflow,local,nats,dev]'
	@touch $@

demo: setup ## Run the main job end to end and show it (SHOW=schedules: Runs that start by themselves, KEEP=1: leave it running, KUBECONFIG=...: use that cluster)
	@$(BIN)/python -m examples.demo

demo-down: setup ## End the demo that KEEP=1 left running
	@$(BIN)/python -m examples.demo down

test: setup test-bed ## Run all tests (ARGS: for pytest; KUBECONFIG=...: use that cluster)
	@$(BIN)/python -m pytest $(IN_TWO) $(ARGS)

test-unit: setup ## Run the tests that need nothing but Python
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" tests/unit tests/triggers $(ARGS)

test-integration: setup test-bed ## Run the tests on a real API server and a real NATS server
	@$(BIN)/python -m pytest $(IN_TWO) tests/integration $(ARGS)

# Before pytest, so that people see what is built.
.PHONY: test-bed
test-bed: setup
	@$(BIN)/python -m tests.cluster build
	@$(BIN)/python -m tests.doubles.mlmd

lint: setup ## Check style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p kfp_operator -p tests.cluster -p examples.demo -p tests.bench
	$(BIN)/lint-imports

format: setup ## Format the code and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

crds: setup ## Generate crds/ from the models
	$(BIN)/kfp-operator crds --output crds

cluster-up: setup ## Start a cluster for development in the background, or find the one that runs
	@$(BIN)/python -m tests.cluster up

cluster-down: setup ## Stop it
	@$(BIN)/python -m tests.cluster down

bench: setup test-bed ## Measure against the project's bars
	@$(BIN)/python -m tests.bench $(ARGS)

clean: ## Remove .venv and caches from this folder (the built test bed stays in the user's cache folder)
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
