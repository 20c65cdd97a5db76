# The everyday commands. Each works by itself on a fresh clone; `make` alone lists them.

PYTHON ?= python3
BIN := .venv/bin

PYTEST := $(BIN)/pytest

# Tests of real servers run one at a time, because other load would disturb them. `make test` runs these few of them.
SERVERS := tests/processes
SERVERS_FIRST := $(addprefix $(SERVERS)/test_,start.py readiness.py reload.py)

.DEFAULT_GOAL := help
.PHONY: help install run test test-long test-faults check docs bench lock

help: ## List these commands
	@$(PYTHON) -c 'import re; [print(f"make {n:11} {t}") for n, t in re.findall("(?m)^([a-z-]+):.*## (.*)", open("Makefile").read())]'

install: .venv/installed ## Put the locked requirements into .venv; PYTHON names the interpreter, 3.11 to 3.13; UV=uv takes uv

# Runs when Python starts, before Gunicorn reads its variables: app/settings/gunicorn_environment.py says why.
CHECK_BEFORE_GUNICORN := import pathlib, shutil, sysconfig; \
	folder = pathlib.Path(sysconfig.get_path("purelib")); \
	shutil.copy("app/settings/gunicorn_environment.py", folder); \
	(folder / "gunicorn_environment.pth").write_text("import gunicorn_environment; gunicorn_environment.check()\n")

# --clear removes packages that are no longer in the lock. Through a link it would clear another folder.
.venv/installed: requirements/development.txt app/settings/gunicorn_environment.py
	@test ! -L .venv || { echo '.venv is a link, and its folder would be cleared: remove the link, then run this again.' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("Python 3.11 to 3.13 is needed and $(PYTHON) is " + sys.version.split()[0] + ": name another one, as in make install PYTHON=python3.12")'
	$(if $(UV),$(UV) venv --quiet --clear --python $(PYTHON) .venv,$(PYTHON) -m venv --clear .venv)
	$(if $(UV),$(UV) pip sync --quiet --python .venv,$(BIN)/pip install --quiet --disable-pip-version-check -r) $< --require-hashes
	@$(BIN)/python -c '$(CHECK_BEFORE_GUNICORN)'
	@touch $@

run: install ## Serve at http://127.0.0.1:8000, from an embedded PostgreSQL unless DATABASE_URL is set
	$(BIN)/gunicorn

test: install ## Run all tests except the long ones; about 9 minutes on two cores
	$(PYTEST) $(SERVERS_FIRST)
	$(PYTEST) --numprocesses=auto --ignore=$(SERVERS)
	$(if $(CI),,@echo 'Not run: the long tests, of servers under faults and of containers. make test-long runs them.')

test-long: install ## Run the long tests, which take 40 minutes and need every program of .ci/programs.txt
	$(PYTEST) -m slow --numprocesses=auto --dist=loadgroup --ignore=$(SERVERS)
	$(PYTEST) -m 'slow or not slow' $(SERVERS) $(SERVERS_FIRST:%=--ignore=%)

test-faults: install ## Run the tests of faults, and print what they measure
	$(BIN)/pytest -m 'slow or not slow' -rP --show-capture=stdout tests/processes/test_faults_*.py

check: install ## Check format, lint, types, security and who imports whom
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml .
	$(BIN)/lint-imports --no-logo

docs: install ## Write the documentation's site to docs/_site
	$(BIN)/python -m sphinx --fail-on-warning --quiet docs docs/_site

bench: install ## Run the benchmarks, and write their results
	$(BIN)/python -m benchmarks

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-config --custom-compile-command 'make lock' $(UPGRADE)

PEERS := benchmarks/peers/applications/requirements

lock: install ## Write requirements/ from pyproject.toml; UPGRADE=--upgrade takes the newest releases
	$(COMPILE) --output-file requirements/runtime.txt pyproject.toml
	$(COMPILE) --output-file requirements/tracing.txt pyproject.toml --group tracing --constraints requirements/runtime.txt
	$(COMPILE) --output-file requirements/development.txt pyproject.toml --group dev --constraints requirements/tracing.txt
	$(COMPILE) --output-file requirements/patroni.txt --group patroni
	$(COMPILE) --output-file $(PEERS).txt $(PEERS).in --constraints requirements/development.txt
