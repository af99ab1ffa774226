# The two commands of the README (demo, test) and a few for daily work.
# Any Python from 3.11 on with venv will do; PYTHON=... picks one.

SHELL := /bin/sh
# Compiled files go beside the installed packages: the commands below leave nothing but .venv.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache
CANDIDATES := $(PYTHON) python3.14 python3.13 python3.12 python3.11 python3
VENV := .venv
BIN := $(VENV)/bin

# A recipe that fails, or is interrupted, leaves no half-made target behind.
.DELETE_ON_ERROR:

.PHONY: help demo test up down bench check format generate docs clean

help:            ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

# The first candidate that runs, is new enough and can make a venv wins; if none does, say why each did not.
$(BIN)/python:
	@for candidate in $(CANDIDATES); do \
	    if ! command -v "$$candidate" >/dev/null 2>&1; then \
	        test "$$candidate" != "$(PYTHON)" || why="$$why    $$candidate: there is no such program\n"; \
	    elif ! "$$candidate" -B -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        why="$$why    $$candidate: older than 3.11, or does not run\n"; \
	    elif ! "$$candidate" -B -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	        why="$$why    $$candidate: has no venv; on Debian and Ubuntu that is the package $${candidate##*/}-venv\n"; \
	    else \
	        echo "creating $(VENV) with $$candidate"; \
	        "$$candidate" -m venv $(VENV) && exit 0; \
	        rm -rf $(VENV); \
	        why="$$why    $$candidate: could not make $(VENV), see above\n"; \
	    fi; \
	done; \
	{ \
	    echo "No Python 3.11 or newer with venv was found."; \
	    printf '%b' "$$why"; \
	    echo "On Debian 12, Ubuntu 24.04 or newer:"; \
	    echo "    sudo apt-get install python3 python3-venv make"; \
	    echo "Elsewhere, name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; \
	} >&2; \
	exit 1

$(VENV)/.run: $(BIN)/python pyproject.toml
	@echo "installing leafdb (server, cli)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,cli]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	@echo "installing leafdb (server, cli, testing, dev)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,cli,testing,dev]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run    ## three real nodes, one of them killed half way, every byte read back
	@$(BIN)/python -m leafdb_cli.demo

test: $(VENV)/.dev    ## the whole suite
	@$(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder

up: $(VENV)/.run      ## start a local three-node cluster that stays
	@$(BIN)/leafdb dev up -n 3

down: $(VENV)/.run    ## stop it
	@$(BIN)/leafdb dev down

bench: $(VENV)/.run   ## throughput and CPU per operation on this machine
	@$(BIN)/python bench/run.py

check: $(VENV)/.dev   ## format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/tidy

format: $(VENV)/.dev  ## rewrite the formatting
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

generate: $(VENV)/.dev  ## write anew what is made from other files: the synchronous client, the page of metrics
	@$(BIN)/python tools/unasync.py
	@$(BIN)/python tools/metrics_reference.py > docs/operations/metrics.md

docs: $(VENV)/.dev    ## make a book of the documentation, check its links and commands, run its blocks
	@$(BIN)/python -m sphinx -W --keep-going -q -b html -d $(VENV)/docs/doctrees docs $(VENV)/docs/html
	@echo "$(VENV)/docs/html/index.html"
	@$(BIN)/python -m pytest -q tests/tidy/test_docs.py tests/unit/docs tests/system/test_pages_at_a_desk.py \
	    --ignore=tests/unit/docs/test_book.py

clean:                ## remove the virtual environment and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
