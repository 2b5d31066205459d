# `make help` lists the targets.
#
# All targets share one virtual environment: locks/test.txt contains locks/demo.txt at the same versions (a test checks
# it). A stamp file for each lock prevents a second installation.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
INTEROP := tests/integration/interop
RIVAL := benchmarks/programs/node

# Every package is a wheel pinned by hash, from the index that your pip is configured for.
INSTALL := $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check --no-deps
LOCKED := $(INSTALL) --require-hashes --only-binary :all: --requirement
PACKAGE := $(INSTALL) --no-build-isolation --editable .

# Programs that tests run and pip cannot install, with their Debian packages.
PROGRAMS := redis-server:redis-server node:nodejs npm:npm openssl:openssl softhsm2-util:softhsm2 gcc:build-essential faketime:faketime promtool:prometheus

# Compiled tests are kept, also where PYTHONDONTWRITEBYTECODE is set: compiling them takes each process five seconds.
PYTEST = PYTHONDONTWRITEBYTECODE= TESTS_WITHOUT="$$(cat $(VENV)/.missing)" $(BIN)/python -m pytest
COMPILE = $(BIN)/uv pip compile --quiet --system-certs --universal --python $(BIN)/python --python-version 3.11.0 --no-build \
	--generate-hashes --no-header --no-annotate --no-emit-index-url
SOURCES = signer tests $(if $(wildcard benchmarks/*.py),benchmarks)

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.demo ## run the demo: sign one challenge with a local site; ARGS=--once exits after it
	@$(BIN)/signer demo $(ARGS)

.PHONY: test
test: $(VENV)/.test programs $(INTEROP)/node_modules/.package-lock.json ## run the tests except the heavy ones, with coverage; or some: ARGS="tests/unit -k nonce"
	@$(PYTEST) $(or $(ARGS),--numprocesses 3 --dist worksteal --cov --cov-report=term-missing)

.PHONY: test-all
test-all: $(VENV)/.test programs $(INTEROP)/node_modules/.package-lock.json ## run all tests, with 5,000 examples for each property
	@HYPOTHESIS_PROFILE=heavy $(PYTEST) -m '' --timeout 3600 $(ARGS)

.PHONY: docs
docs: $(VENV)/.test ## write the pages that are generated from the code: docs/errors.md, docs/events.md, docs/metrics.md
	@$(BIN)/python -m tests.support.pages

.PHONY: check
check: $(VENV)/.test ## run ruff, mypy and import-linter; check locks, Kubernetes manifests and Dockerfile
	@$(MAKE) --no-print-directory --keep-going check-code check-types check-imports check-locks check-manifests

.PHONY: check-code
check-code: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: check-types
check-types: $(VENV)/.test
	@$(BIN)/python -m mypy $(SOURCES)

.PHONY: check-imports
check-imports: $(VENV)/.test
	@$(BIN)/lint-imports --no-logo

.PHONY: check-locks
check-locks: $(VENV)/.test
	@$(BIN)/python -m pytest -q tests/unit/deploy/test_locks.py
	@$(BIN)/python -m pip check

.PHONY: check-manifests
check-manifests: $(VENV)/.test
	@.ci/check-manifests $(BIN)

.PHONY: chaos
chaos: $(VENV)/.test programs ## kill and disturb a running site, then check that nothing was lost or signed twice; SEED=7 or 1-10, ARGS=--help
	@$(BIN)/python -m tests.chaos --seed $(or $(SEED),1) $$(grep -w softhsm2-util $(VENV)/.missing >/dev/null && echo --no-hsm) $(ARGS)

.PHONY: soak
soak: $(VENV)/.test ## sign 100,000 challenges, then check memory, Redis and logs; ARGS=--help
	@$(BIN)/python -m tests.soak $(ARGS)

.PHONY: bench
bench: $(VENV)/.test bench-programs $(RIVAL)/node_modules/.package-lock.json ## compare the service with other programs in ten minutes, ARGS=--quick in 90 s; ARGS=list: the other benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-programs
bench-programs:
	@[ -z "$$(.ci/debian-packages wrk:wrk node:nodejs npm:npm redis-server:redis-server softhsm2-util:softhsm2 $(if $(filter instructions all,$(ARGS)),valgrind:valgrind))" ]

.PHONY: bench-keys
bench-keys: $(VENV)/.test programs ## run the benchmarks of the key backends, each compared with its bare library
	@failed=; for each in benchmarks/keys_*.py; do \
	  name=$$(basename $$each .py); echo "== $$name"; $(BIN)/python -m benchmarks $$name || failed="$$failed $$name"; echo; \
	done; [ -z "$$failed" ] || { echo "goals missed or not measured:$$failed"; exit 1; }

.PHONY: format
format: $(VENV)/.test ## sort imports and format the code
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

.PHONY: lock
lock: $(VENV)/.test ## update locks/ from pyproject.toml; ARGS=--upgrade takes newer versions
	@$(COMPILE) pyproject.toml --all-extras --group build --group test --group check $(ARGS) --output-file locks/test.txt
	@$(COMPILE) pyproject.toml --extra demo --extra awscrt --extra awskms --group build --constraint locks/test.txt --output-file locks/demo.txt
	@$(COMPILE) pyproject.toml --extra awscrt --extra awskms --constraint locks/test.txt --output-file locks/run.txt
	@$(COMPILE) --group build --constraint locks/test.txt --output-file locks/build.txt

.PHONY: clean
clean: ## remove everything that the other targets created
	rm -rf $(VENV) $(INTEROP)/node_modules $(RIVAL)/node_modules build dist .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment -------------------------------------------------------------------------------------------------

$(VENV)/.made: .ci/make-venv
	@.ci/make-venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made locks/demo.txt pyproject.toml
	@echo "installing locks/demo.txt"
	@$(LOCKED) locks/demo.txt
	@$(PACKAGE)
	@touch $@

$(VENV)/.test: $(VENV)/.made locks/test.txt pyproject.toml
	@echo "installing locks/test.txt"
	@$(LOCKED) locks/test.txt
	@$(PACKAGE)
	@touch $(VENV)/.demo $@

.PHONY: programs
programs: | $(VENV)/.made
	@.ci/debian-packages $(PROGRAMS) >$(VENV)/.missing

%/node_modules/.package-lock.json: %/package-lock.json | programs
	@if command -v npm >/dev/null; then \
	  echo "installing $*"; \
	  cd $* && npm ci --silent </dev/null && touch node_modules/.package-lock.json; \
	fi
