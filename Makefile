# Everything that is built, run or checked, on a machine with git, make and some Python >= 3.12.
#
# `make setup` makes .venv from requirements.lock (with hashes) and nothing else; every other target goes
# through it. `make help` lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
FLOOR := .venv-floor
PY := $(VENV)/bin/python

# Processes that run tests side by side; one per core of the smallest machine that is supported.
WORKERS ?= 2
PYTEST_ARGS ?=
PANEL_ARGS ?=
# What `make floor` runs: the core. Tests of absent packages skip themselves, in words.
CORE := exact_start run adaptation sampling model parameters numpyro_bridge diagnostics findings
FLOOR_TESTS ?= $(CORE:%=tests/test_%.py)
# Double precision is the same law by the same kernels, and mutants are the tests' own: the newest versions are enough.
# So they are for how often programs are compiled. XLA's dear passes are left out, which takes a fifth off: what they make
# of a law is the business of the newest.
FLOOR_SKIPS := -k "not (leaves_target_invariant and float64) and not mutant and not examples and not compil and not few_chains"

DEMO := runs/breast_cancer
UV_VERSION := 0.13.9

# Bytecode is written when a module is first imported, not for every file of every package.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-input --no-compile
LOCKED := $(INSTALL) --require-hashes --only-binary :all: -r
PROJECT := $(INSTALL) --no-deps --no-build-isolation --editable .
COMPILE := pip compile --no-config --universal --no-python-downloads --python-version 3.12 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate --quiet

# $(call make_venv,FOLDER): a virtual environment, made anew unless one with Python >= 3.12 and pip is there.
define make_venv
@if ! $(1)/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then \
	python=$$(sh scripts/find_python.sh) || exit 1; \
	echo "making $(1) with $$python"; \
	"$$python" -m venv --clear $(1); \
fi
endef

.PHONY: help setup demo test lint format types docs validate bench panel floor floor-setup lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/    make \1|\2/p' Makefile | awk -F '|' '{printf "%-20s %s\n", $$1, $$2}'

setup: $(VENV)/.installed  ## make .venv, with everything pinned by hash

$(VENV)/.locked: requirements.lock
	$(call make_venv,$(VENV))
	@echo "installing requirements.lock into $(VENV) (a minute or two)"
	@$(PY) $(LOCKED) requirements.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(PY) $(PROJECT)
	@touch $@

demo: setup  ## sample the breast cancer posterior and write runs/breast_cancer/report.html
	@rm -rf $(DEMO)
	@status=0; $(VENV)/bin/shoal sample breast_cancer --out $(DEMO) || status=$$?; \
	if [ $$status -ne 0 ] && [ $$status -ne 3 ]; then exit $$status; fi; \
	$(VENV)/bin/shoal report $(DEMO) || exit $$?; \
	if [ $$status -eq 3 ]; then \
		echo "The report is written, but the run has not converged: see the reasons above." >&2; \
	fi; \
	exit $$status

test: setup  ## run the quick tests (options: WORKERS=2 PYTEST_ARGS="-k name")
	$(PY) -m pytest -n $(WORKERS) --dist loadscope $(PYTEST_ARGS)

lint: setup  ## check style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: setup  ## format the sources and sort their imports
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

types: setup  ## check the types of src
	$(VENV)/bin/pyright

docs: setup  ## build the documentation into docs/_build/html; a warning is an error
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html

validate: setup  ## run the slow statistical studies and kill runs at random (an hour or more)
	$(PY) -m pytest -m slow $(PYTEST_ARGS)
	SHOAL_KILL_STRIDE=1 $(PY) -m pytest tests/test_durable.py -k any_write
	$(PY) benchmarks/kills.py
	$(PY) -m benchmarks.calibration --seeds 6 --few 1 --adversary-seeds 1
	@for script in benchmarks/validate*.py; do \
		if [ -e "$$script" ]; then echo "$$script"; $(PY) "$$script" || exit 1; fi; \
	done

bench: setup  ## run the benchmark scripts and print their tables
	@for script in benchmarks/*.py; do \
		case "$$script" in benchmarks/validate*|benchmarks/\*.py) continue ;; esac; \
		echo "$$script"; $(PY) "$$script" || exit 1; \
	done

panel: setup  ## run the cells of the benchmark panel that are missing, and render its page (hours)
	$(PY) -m benchmarks.panel $(PANEL_ARGS)
	$(PY) -m benchmarks.panel --render

floor: floor-setup  ## run the tests on the oldest versions allowed, without the optional packages
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(FLOOR)/bin/python -m pytest -n $(WORKERS) --dist loadscope $(FLOOR_SKIPS) $(PYTEST_ARGS) $(FLOOR_TESTS)

floor-setup: $(FLOOR)/.installed

$(FLOOR)/.locked: requirements-floor.lock
	$(call make_venv,$(FLOOR))
	@echo "installing requirements-floor.lock into $(FLOOR)"
	@$(FLOOR)/bin/python $(LOCKED) requirements-floor.lock
	@touch $@

$(FLOOR)/.installed: $(FLOOR)/.locked pyproject.toml
	@$(FLOOR)/bin/python $(PROJECT)
	@touch $@

# uv is used here and nowhere else. The existing lock files are its starting point: what need not move stays,
# and `make lock UPGRADE=--upgrade` moves everything.
UPGRADE ?=
lock:  ## write the lock files again (options: UPGRADE=--upgrade)
	$(call make_venv,$(VENV))
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(VENV)/bin/uv $(COMPILE) --python $(PY) $(UPGRADE) --extra all --group dev --group docs \
		pyproject.toml -o requirements.lock
	$(VENV)/bin/uv $(COMPILE) --python $(PY) $(UPGRADE) requirements-floor.in -o requirements-floor.lock
	@! grep -n '://' requirements.lock requirements-floor.lock || { echo "a lock file names a host" >&2; exit 1; }

clean:  ## remove what was built: environments, documentation, caches; not your runs
	rm -rf $(VENV) $(FLOOR) build dist docs/_build .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
