# The two commands of the README (demo, test) and a few for daily work.
# Any Python from 3.11 on with venv will do; PYTHON=... picks one.

SHELL := /bin/sh
# Compiled files go beside the installed packages: the commands below leave nothing but .venv.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache
CANDIDATES := $(PYTHON) python3.14 python3.13 python3.12 python3.11 python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test up down bench check format docs clean

help:            ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

# The first candidate that runs, is new enough and can make a venv wins.
$(BIN)/python:
	@for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "creating $(VENV) with $$candidate"; \
	        "$$candidate" -m venv $(VENV) && exit 0; \
	        rm -rf $(VENV); \
	    fi; \
	done; \
	echo "No Python 3.11 or newer with venv found. On Debian or Ubuntu:"; \
	echo "    sudo apt-get install python3 python3-venv make"; \
	echo "or name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; \
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
	@$(BIN)/python -m pytest

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

docs: $(VENV)/.dev    ## check the documentation's links and names
	@$(BIN)/python -m pytest -q tests/tidy/test_docs.py

clean:                ## remove the virtual environment and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
