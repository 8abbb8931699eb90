# Everything runs in .venv, which is made here: a machine needs Python 3.11 or newer and make, nothing else.
# `make PYTHON=python3.12 demo` picks the interpreter; `make clean` forgets it again.

SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?=
SOAK_SECONDS ?= 600
SOAK_ARGS ?=
BENCH_ARGS ?=
PYTEST_ARGS ?=
# How many processes share the suite; each has a PostgreSQL of its own.
WORKERS ?= 3
MATRIX ?= sample

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location
IN_VENV := VIRTUAL_ENV="$(CURDIR)/$(VENV)" PATH="$(CURDIR)/$(BIN):$$PATH"

# A stamp says that .venv holds what its name says, for the pyproject.toml of that moment.
VENV_READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.ready-for-demo
EXAMPLE_READY := $(VENV)/.ready-for-example
DEV_READY := $(VENV)/.ready-for-dev
# Peers have demands of their own, on Python and on SQLAlchemy, so the benchmarks have an environment of their own.
BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
BENCH_READY := $(BENCH_VENV)/.ready
STALE := $(shell test -x $(BIN)/python || rm -f $(VENV_READY) $(DEMO_READY) $(EXAMPLE_READY) $(DEV_READY))

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(DEMO_READY) ## watch events being published, refused, read back and projected (SQLite)
	@$(BIN)/python examples/quickstart.py

.PHONY: example
example: $(EXAMPLE_READY) ## start examples/shop on SQLite, at http://127.0.0.1:8000, until Ctrl-C
	@cd examples/shop && env $(IN_VENV) alembic upgrade head && \
	echo 'The shop: http://127.0.0.1:8000/docs, its events: http://127.0.0.1:8000/events' && \
	exec env $(IN_VENV) uvicorn shop.app:app --port 8000

.PHONY: test
test: $(DEV_READY) ## run the suite: in memory, SQLite, a real PostgreSQL
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope $(PYTEST_ARGS)

.PHONY: test-all
test-all: $(DEV_READY) ## run the suite with the tests that take long
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope -m '' $(PYTEST_ARGS)

.PHONY: check
check: $(DEV_READY) ## run every checker: style, format, types, layers, links of the documentation
	@failed=''; \
	run() { \
	    printf '== %s\n' "$$*"; \
	    env $(IN_VENV) "$$@" || failed="$$failed  $$*"'\n'; \
	}; \
	run ruff check .; \
	run ruff format --check .; \
	run mypy; \
	run pyright; \
	run pyright --ignoreexternal --verifytypes eventstore_sa; \
	run lint-imports --no-cache --no-logo; \
	run python docs/site/build.py; \
	if [ -n "$$failed" ]; then printf 'These checks failed:\n%b' "$$failed" >&2; exit 1; fi; \
	echo 'All checks passed.'

.PHONY: docs
docs: $(DEV_READY) ## build the documentation as a site, in build/docs
	@$(BIN)/python docs/site/build.py

.PHONY: format
format: $(DEV_READY) ## put imports and layout in order
	@$(BIN)/ruff check --fix --select I . && $(BIN)/ruff format .

.PHONY: coverage
coverage: $(DEV_READY) ## run the suite and show the lines it does not reach
	@$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGS) && $(BIN)/python -m coverage report

.PHONY: matrix
matrix: $(DEV_READY) ## run the suite over Pythons, SQLAlchemys, PostgreSQLs (MATRIX=full: all pairs)
	@$(BIN)/python -m tests.matrix $(MATRIX)

.PHONY: soak
soak: $(DEV_READY) ## hunt lost events, then lost and doubled effects, each for SOAK_SECONDS (default 600)
	@$(BIN)/python -m tests.soak --seconds $(SOAK_SECONDS) $(SOAK_ARGS)
	@$(BIN)/python -m tests.soak.subscriptions --seconds $(SOAK_SECONDS)

.PHONY: bench
bench: $(BENCH_READY) ## measure beside raw drivers and peers, and write benchmarks/RESULTS.md (25 minutes)
	@$(BENCH_BIN)/python -m benchmarks --results benchmarks $(BENCH_ARGS)

.PHONY: bench-quick
bench-quick: $(BENCH_READY) ## the same in three minutes, for a look: writes nothing
	@$(BENCH_BIN)/python -m benchmarks --quick $(BENCH_ARGS)

.PHONY: api
api: $(DEV_READY) ## record the public API in tests/api.txt, which a test compares
	@$(BIN)/python -m tests.api

.PHONY: dist
dist: $(DEV_READY) ## build what a release uploads into dist/, and check it
	@rm -rf dist && $(BIN)/python -m hatchling build -t sdist -t wheel
	@$(BIN)/python -m twine check --strict dist/* && $(BIN)/check-wheel-contents dist/*.whl

.PHONY: clean
clean: ## remove environments, caches and build results
	@rm -rf .venv .venv-bench .venv-matrix .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
	    build dist htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Candidates are tried by running them: what lies on PATH may be a shim for a version that is not there.
$(VENV_READY):
	@suits='import sys; sys.exit(sys.version_info < (3, 11))'; found=''; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python); do \
	    if "$$candidate" -c "$$suits" >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo 'eventstore_sa needs Python 3.11 or newer.' >&2; \
	    echo 'Looked for: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)' >&2; \
	    echo "Found: $$("$(or $(PYTHON),python3)" --version 2>&1 | head -n 1)" >&2; \
	    echo 'Install one, or name it: make PYTHON=/path/to/python3.12 demo' >&2; \
	    exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    echo "$$found has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; \
	    exit 1; \
	fi; \
	if ! [ -x $(BIN)/python ] || ! $(BIN)/python -c "$$suits" >/dev/null 2>&1; then \
	    echo "Making $(VENV) with $$("$$found" --version) ..."; \
	    "$$found" -m venv --clear $(VENV); \
	fi
	@touch $@

$(DEMO_READY): pyproject.toml | $(VENV_READY)
	@echo 'Installing what the demo needs into $(VENV) ...'
	@$(PIP) --editable '.[aiosqlite]'
	@touch $@

$(EXAMPLE_READY): pyproject.toml | $(VENV_READY)
	@echo 'Installing what the example needs into $(VENV) ...'
	@$(PIP) --editable '.[aiosqlite,alembic,browser,cli,opentelemetry,testing]' fastapi uvicorn
	@touch $(DEMO_READY) $@

$(DEV_READY): pyproject.toml | $(VENV_READY)
	@echo 'Installing what tests and checks need into $(VENV) ...'
	@$(PIP) --editable '.[dev]'
	@touch $(DEMO_READY) $(EXAMPLE_READY) $@

# The newest Python that is found, because two of the peers need 3.13.
$(BENCH_READY): pyproject.toml
	@found=''; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3.14 python3.13 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[34].*/bin/python python3.12 python3.11 python3); do \
	    if "$$candidate" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        found="$$candidate"; break; \
	    fi; \
	done; \
	if [ -z "$$found" ]; then echo 'The benchmarks need Python 3.11 or newer, 3.13 for all peers.' >&2; exit 1; fi; \
	echo "Making $(BENCH_VENV) with $$("$$found" --version) ..."; \
	"$$found" -m venv --clear $(BENCH_VENV)
	@echo 'Installing what the benchmarks compare with ...'
	@$(BENCH_BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location --editable '.[bench]'
	@touch $@
