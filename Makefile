# make demo: train the first networks on real data. make test: run all tests. Both make .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# GPU users who keep their own torch: make demo CONSTRAINTS=
CONSTRAINTS ?= constraints.txt
# arguments of the demo, for example --seeds 1 --epochs 2
DEMO ?=

.PHONY: demo test check docs clean

demo: $(VENV)/.demo
	$(BIN)/pendula demo $(DEMO)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto

check: $(VENV)/.test
	$(BIN)/ruff check src tests docs benchmarks
	$(BIN)/ruff format --check src tests docs benchmarks
	$(BIN)/mypy

docs: $(VENV)/.test
	$(BIN)/python docs/generate.py
	$(BIN)/python -m tests.conformance

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("pendula needs Python 3.11 or later; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# the marks say what was installed from which files; a change of either installs again
$(VENV)/.demo: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[train]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[train,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
