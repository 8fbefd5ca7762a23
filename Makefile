# make demo: train the first networks on real data. make test: run all tests. Both make .venv first.
# make gpu: tests and times on a GPU (with CONSTRAINTS=). make wheel: wheels in dist/. make sanitize: the compiled scans under AddressSanitizer (Linux, GCC, cmake). docs/native.md
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# GPU users who keep their own torch: make demo CONSTRAINTS=
CONSTRAINTS ?= constraints.txt
# arguments of the demo, for example --seeds 1 --epochs 2
DEMO ?=

.PHONY: demo test check docs wheel sanitize gpu clean

demo: $(VENV)/.demo
	$(BIN)/pendula demo $(DEMO)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto

check: $(VENV)/.test
	$(BIN)/ruff check src tests docs benchmarks packaging
	$(BIN)/ruff format --check src tests docs benchmarks packaging
	$(BIN)/mypy

docs: $(VENV)/.test
	$(BIN)/python docs/generate.py
	$(BIN)/python -m tests.conformance

wheel: $(BIN)/python
	packaging/wheel.sh $(BIN)/python $(CONSTRAINTS)

# Python itself is not instrumented, so the run-time libraries go first; its own leaks are none of ours
sanitize: $(VENV)/.test
	cmake -S native -B build/sanitize -DPENDULA_SANITIZE=address,undefined
	cmake --build build/sanitize --parallel
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	  $(BIN)/python -m pytest -n auto --capture=sys --library build/sanitize tests/ops tests/test_native.py \
	  tests/cells/test_cornn.py tests/cells/test_unicornn.py tests/cells/test_lem.py tests/cells/test_odernn.py

# where there is an NVIDIA GPU: the numbers of its kernels, then their times
gpu: $(VENV)/.test
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[triton]'
	TRITON_INTERPRET=0 CUBLAS_WORKSPACE_CONFIG=:4096:8 $(BIN)/python -m pytest $(wildcard tests/ops/test_triton*.py) tests/learn/test_graphed.py
	TRITON_INTERPRET=0 $(BIN)/python benchmarks/gpu.py

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("pendula needs Python 3.11 or later; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# the marks say what was installed from which files; a change of either installs again
$(VENV)/.demo: $(BIN)/python pyproject.toml $(CONSTRAINTS) $(wildcard native/*)
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[train]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[train,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
