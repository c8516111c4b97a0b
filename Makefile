# `make` prints what there is; `make sweep SPACE=lr` and `make test` need nothing but Python and make.
PYTHON ?= python3
SPACE ?= lr
SCALE ?=
ARGS ?=

# The recipes name the environment by a relative path, so that the folder may have spaces in its name.
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup sweep analyze test test-all check dashboard tensorboard clean

help: ## print this
	@echo "make TARGET [SPACE=lr] [SCALE=cpu] [ARGS=...]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' Makefile | expand -t 16

setup: $(READY) ## make the virtual environment

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

sweep: $(READY) ## run the search space SPACE, or go on with it
	$(BIN)/python -m sweeps.run "$(SPACE)" $(if $(SCALE),--scale "$(SCALE)") $(ARGS)

analyze: $(READY) ## write tables and figures of all sweeps, or of those in ARGS
	$(BIN)/python -m sweeps.analyze $(ARGS)

test: $(READY) ## run the tests
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-all: $(READY) ## run the tests, every shipped space at scale smoke, and the report in a browser
	$(BIN)/python -m pytest $(ARGS)

check: $(READY) ## what CI runs: format, lint, types, all tests
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest $(ARGS)

dashboard: $(READY) ## say where the dashboard of a running sweep is, and its token
	@echo "http://127.0.0.1:8265 while a sweep runs; it prints the address where that one is taken"
	@$(BIN)/python -m ray.scripts.scripts get-auth-token

tensorboard: $(READY) ## serve the learning curves of all sweeps on 127.0.0.1
	$(BIN)/python -m sweeps.analyze --tensorboard
	$(BIN)/python -m tensorboard.main --logdir results --host 127.0.0.1

clean: ## remove the environment and caches; results stay
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
