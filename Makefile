# Two commands on a fresh machine (python3 3.11 to 3.13, python3-venv and make): `make run` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
# How many tests run at the same time. What they start runs beside them, so this is no more than there are cores.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -p tests.req_plugin

# Debian packages that some tests want. `make test` never installs them; it names what it skipped for lack of them.
SYSTEM_PACKAGES := git npm podman runc conmon

.PHONY: help run test prove kernel bench test-all requirements system lint clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "EventCore needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 run"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "python3-venv is missing. Try: apt-get install python3-venv"; exit 2; }
	@echo "setting up $(VENV) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . >&2
	@touch $@

$(DEV): $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' >&2
	@touch $@

run: $(READY)  ## set up, then chat with the repository's own home (pipe lines in, or type)
	@$(BIN)/eventcore chat

test: $(DEV)  ## set up, then everything that must hold; violent tests sample by a printed seed
	@$(PYTEST) -q -rs -m 'not prove' --durations=10 -n $(WORKERS) --dist loadfile

prove: $(DEV)  ## the violent tests in full counts, and the real public inputs (as root on Debian 12: on its kernel too)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  $(MAKE) --no-print-directory kernel || echo "without Debian's kernel: its test will say what it lacks" >&2; fi
	@EVENTCORE_PROVE=1 $(PYTEST) -q -s tests/recovery tests/prove tests/sandbox/test_attacks.py tests/sandbox/test_worker_life.py

bench: $(DEV)  ## figures against peers in the same run; exits 1 on a miss (ONLY=workflows: one group)
	@$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

test-all: $(DEV)  ## `make test` on every Python from 3.11 to 3.13 on PATH; names the absent
	@for version in 3.11 3.12 3.13; do \
	  if command -v python$$version >/dev/null && python$$version -c '' 2>/dev/null; then \
	    echo "== Python $$version"; $(MAKE) --no-print-directory PYTHON=python$$version VENV=.venv-$$version test || exit 1; \
	  else echo "== Python $$version is not on PATH: not tested"; fi; done

requirements: $(DEV)  ## which requirement has a test that names it, and whether it passed in the last run
	@$(BIN)/python -m tests.requirements

lint: $(DEV)  ## ruff, mypy and the layer rule alone (they are part of `make test`)
	@$(PYTEST) -q tests/architecture

system:  ## Debian packages that some tests want (needs root)
	@missing=$$(for package in $(SYSTEM_PACKAGES); do command -v $$package >/dev/null || echo $$package; done); \
	if [ -n "$$missing" ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; fi

kernel:  ## Debian 12's own kernel in .prove, and an emulator to boot it (needs root)
	@missing=$$(for one in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static; do \
	  command -v $${one%%:*} >/dev/null || echo $${one##*:}; done); \
	if [ -n "$$missing" ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; fi
	@mkdir -p .prove; cd .prove; ls linux-image-6.1.*_amd64.deb >/dev/null 2>&1 || { \
	  apt-get update -qq; apt-get download -qq $$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-6.1/{print $$2; exit}'); }

clean:  ## remove what the other targets made
	rm -rf $(VENV) .venv-3.1? build dist .bench .prove .mypy_cache .ruff_cache .hypothesis .eventcore
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
