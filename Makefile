# The everyday lines. Each works by itself on a fresh clone; `make` alone lists them.

PYTHON ?= python3
BIN := .venv/bin

# These start real servers, which want the machine for themselves: they run last and one at a time.
SERVER_TESTS := $(wildcard tests/processes tests/deploy)

.DEFAULT_GOAL := help
.PHONY: help install run test test-faults check bench lock

help: ## List these lines
	@$(PYTHON) -c 'import re; [print(f"make {n:11} {t}") for n, t in re.findall("(?m)^([a-z-]+):.*## (.*)", open("Makefile").read())]'

install: .venv/installed ## Put the locked requirements into .venv; PYTHON names the interpreter, 3.11 or newer

# --clear, so that what has left the lock leaves the environment as well.
.venv/installed: requirements/development.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed and $(PYTHON) is " + sys.version.split()[0] + ": name another one, as in make install PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

run: install ## Serve at http://127.0.0.1:8000, from an embedded PostgreSQL unless DATABASE_URL is set
	$(BIN)/gunicorn

test: install ## Run all tests and ask for their coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses=auto $(SERVER_TESTS:%=--ignore=%)
	$(if $(SERVER_TESTS),$(BIN)/coverage run -m pytest $(SERVER_TESTS))
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-faults: install ## Break the parts that a service stands on, the slow ways too, and print what was measured
	$(BIN)/pytest -m 'slow or not slow' -rP --show-capture=stdout tests/processes/test_faults_*.py

check: install ## Check format, lint, types, security and who imports whom
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml .
	$(BIN)/lint-imports --no-logo

bench: install ## Measure what the patterns are worth
	$(BIN)/python -m benchmarks

COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-config --custom-compile-command 'make lock' $(UPGRADE)

lock: install ## Write requirements/ anew from pyproject.toml; UPGRADE=--upgrade takes the newest releases
	$(COMPILE) --output-file requirements/runtime.txt
	$(COMPILE) --output-file requirements/development.txt --group dev --constraints requirements/runtime.txt
