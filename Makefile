# `make` lists the targets. `make sweep SPACE=lr` and `make test` need nothing but Python and make.
PYTHON ?= python3
SPACE ?= lr
SCALE ?=
ARGS ?=

# The recipes name the environment by a relative path, so that the folder may have spaces in its name.
BIN := .venv/bin
# Not compiled: Python does that with what it imports, which is a small part.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt
# The `sweeps` script by its module, which says so where another package `sweeps` shadows ours.
SWEEPS := $(BIN)/python -m tinylm_sweeps
SWEEP := .venv/.ready-sweep
DEV := .venv/.ready-dev
BENCH := .venv/.ready-bench

# Python keeps what it has compiled, which the many processes of a sweep and of the tests would do again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup sweep analyze test test-all test-faults test-cluster check bench gpu schema architecture dashboard tensorboard audit clean

help: ## print this
	@echo "make TARGET [SPACE=lr] [SCALE=cpu] [ARGS=...]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' Makefile | expand -t 16

setup: $(SWEEP) ## install what a sweep needs into .venv

$(SWEEP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

$(DEV): $(SWEEP)
	$(PIP) -e ".[dev]"
	@touch $@

$(BENCH): $(SWEEP)
	$(PIP) -e ".[bench]"
	@touch $@

sweep: $(SWEEP) ## run the sweep of the search space SPACE, or resume it
	$(SWEEPS) run "$(SPACE)" $(if $(SCALE),--scale "$(SCALE)") $(ARGS)

analyze: $(SWEEP) ## write tables and figures of all sweeps, or of those in ARGS
	$(SWEEPS) analyze $(ARGS)

test: $(DEV) ## run the tests, without the slow ones
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-all: $(DEV) ## run all tests: also kills and failures, every shipped space, the trackers, the report in a browser
	$(BIN)/python -m pytest $(ARGS)

test-faults: $(DEV) ## inject the faults that can be, and print what was seen and which rows were lost
	$(BIN)/python -m pytest -m fault $(ARGS)

test-cluster: $(DEV) ## run sweeps on Ray clusters of several nodes, and on GPUs that are declared
	$(BIN)/python -m pytest -m cluster $(ARGS)

check: $(DEV) ## run what CI runs: format, lint, types, all tests but those of failing machines
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -m "not system" $(ARGS)

bench: $(BENCH) ## measure the speed of training beside other trainers; NANOGPT=DIR adds nanoGPT
	$(BIN)/python -m benchmarks.trainer $(ARGS)

# On the Python at hand, which has a torch that knows the device; nothing is installed.
gpu: ## check and measure training on one CUDA GPU; NANOGPT=DIR adds nanoGPT
	$(PYTHON) -m benchmarks.gpu $(ARGS)

schema: $(SWEEP) ## write what the settings are: search_spaces/schema.json for editors, docs/config.md, docs/spaces.md
	$(BIN)/python -m sweeps.plan.space > .venv/schema.json
	mv .venv/schema.json search_spaces/schema.json
	$(BIN)/python docs/reference.py

architecture: $(SWEEP) ## draw docs/architecture.svg from the imports of the code
	$(BIN)/python docs/architecture.py

dashboard: $(SWEEP) ## print where the dashboard of a running sweep is, and its token
	@echo "http://127.0.0.1:8265 while a sweep runs; it prints the address if that port is taken"
	@$(BIN)/python -m ray.scripts.scripts get-auth-token

tensorboard: $(SWEEP) ## write event files of all sweeps as they are now, and serve them on 127.0.0.1
	$(SWEEPS) analyze --tensorboard
	$(BIN)/python -m tensorboard.main --logdir results --host 127.0.0.1

# What constraints.txt pins, against the database of known vulnerabilities, in an environment of its own.
AUDIT := .venv/audit
audit: ## look the versions of constraints.txt up in the database of known vulnerabilities
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	@$(AUDIT)/bin/python -c "import json, urllib.request as r; json.load(r.urlopen('https://pypi.org/pypi/pip/24.0/json', timeout=20))['vulnerabilities'][0]" 2> /dev/null || \
	  { echo "the database (https://pypi.org) is out of reach from here: nothing was looked up" >&2; exit 7; }
	@$(AUDIT)/bin/pip-audit --no-deps --disable-pip --requirement constraints.txt

clean: ## remove the environment and caches; results stay
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
