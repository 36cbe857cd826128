# Every target sets up what it needs: a virtual environment in .venv with the tested versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A further index for torch, whose build on the registry is, on Linux, that for CUDA (several gigabytes). For the
# processor alone: make quickstart TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# Folder with TASK/SPLIT.parquet in the columns of nyu-mll/glue: make bench DATA=PATH/glue
DATA ?=
PIP := $(BIN)/pip --quiet --disable-pip-version-check install
ON := $(if $(DATA), --data $(DATA))

.PHONY: help quickstart test slurm lint format bench wheel clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --constraint constraints.txt --editable '.[dev,offline,tensorboard,mlflow,dashboard,augment,export,plots,joblib,slurm,sweep]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev benchmarks/requirements.txt
	$(PIP) --no-deps --requirement benchmarks/requirements.txt
	@touch $@

quickstart: $(VENV)/.installed  ## Install, then distil three toy tasks into two students and show the table (under 5 minutes)
	$(BIN)/kd-distill --multirun experiment=quickstart,quickstart_bilstm

test: $(VENV)/.installed-dev  ## Run all tests that need no Hub and no GPU
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 2 --dist worksteal

slurm: $(VENV)/.installed-dev  ## Run the tests that start a SLURM here (root; slurmctld, slurmd, slurm-client, munge)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -m slurm tests/apps/slurm

lint: $(VENV)/.installed-dev  ## Check format, style, types, spelling and the floors of the house
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.installed-dev  ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.installed-bench  ## Measure what benchmarks/README.md claims (long): make bench DATA=PATH/glue
	$(BIN)/python benchmarks/startup.py$(ON)
	$(BIN)/python benchmarks/overhead.py$(ON)
	$(BIN)/python benchmarks/overhead.py --precision bf16-mixed$(ON)
	$(BIN)/python benchmarks/padding.py$(ON)
	$(BIN)/python benchmarks/finetune.py --task sst2 --steps 32$(ON)
	$(BIN)/python benchmarks/finetune.py --task rte --steps 12$(ON)
	$(BIN)/python benchmarks/finetune.py --quality --task sst2 --rows 4000$(ON)
	$(BIN)/python benchmarks/many_students.py --rows 1000 --systems ours textbrewer-cache --verify$(ON)
	$(BIN)/python benchmarks/many_students.py --rows 320$(ON)
	$(BIN)/python benchmarks/memory.py$(ON)
	$(BIN)/python benchmarks/memory.py --distill$(ON)
	$(BIN)/python benchmarks/bilstm_training.py --vocabulary pieces$(ON)
	$(BIN)/python benchmarks/bilstm_training.py --vocabulary words$(ON)
	$(BIN)/python benchmarks/bilstm_training.py --quality$(ON)
	$(BIN)/python benchmarks/bilstm_training.py --quality --vocabulary pieces$(ON)
	$(BIN)/python benchmarks/bilstm_inference.py$(ON)
	$(BIN)/python benchmarks/augmentation.py$(ON)
	$(BIN)/python benchmarks/labelling.py$(ON)
	$(BIN)/python benchmarks/cases_per_second.py$(ON)
	$(BIN)/python benchmarks/unused_heads.py$(ON)
	$(BIN)/python benchmarks/unused_heads.py --layers 2 --hidden 64 --rows 4 --steps 100$(ON)
	$(BIN)/python benchmarks/compiled.py --task rte --batches 3$(ON)
	$(BIN)/python benchmarks/compiled.py --task rte --batches 3 --precision bf16-mixed$(ON)
	$(BIN)/python benchmarks/compiled.py --task sst2 --batches 4$(ON)
	$(BIN)/python benchmarks/compiled.py --encoder tiny --task sst2 --rounds 15$(ON)

wheel: $(VENV)/.installed-dev  ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build --no-isolation

clean:  ## Remove the environment, caches and builds (outputs/ stays)
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
