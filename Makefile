# Every target sets up what it needs: a virtual environment in .venv with the tested versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help quickstart test lint format bench wheel clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,offline,tensorboard]'
	@touch $@

quickstart: $(VENV)/.installed  ## Install, then distil three toy tasks and show the table (under 5 minutes)
	$(BIN)/kd-distill experiment=quickstart

test: $(VENV)/.installed-dev  ## Run all tests that need no network and no GPU
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-dev  ## Check format, style, types, spelling and the floors of the house
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.installed-dev  ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.installed-dev  ## Measure what benchmarks/README.md claims (long)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/padding.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/finetune.py
	$(BIN)/python benchmarks/many_students.py

wheel: $(VENV)/.installed-dev  ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean:  ## Remove the environment, caches and builds (outputs/ stays)
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
