# make demo: from a fresh clone to a trained model and its report.   make test: lint, types, layers and tests.
# make docs: the pages of docs/ as a site in site/; any warning fails.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# one thread a test process: two processes fill two cores, and sums do not depend on the machine
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --durations 10

.PHONY: demo test test-all lint format bench docs clean

demo: $(VENV)/.installed
	$(BIN)/omma demo

test: lint
	$(TEST) -m "not slow"

test-all: lint
	$(TEST)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests benchmarks compat
	$(BIN)/ruff format --check src tests benchmarks compat
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix src tests benchmarks compat
	$(BIN)/ruff format src tests benchmarks compat

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/lift.py
	$(BIN)/python benchmarks/lss_step.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/diffbev.py
	$(BIN)/python benchmarks/g2_monodepth.py
	$(BIN)/python benchmarks/sdpose.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/panollava.py

docs: $(VENV)/.installed-docs
	$(BIN)/zensical build --clean --strict

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[docs]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf build dist site .cache .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
