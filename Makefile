# `make demo` runs a whole federation on a fresh clone, `make test` runs what CI runs.
# TORCH says which PyTorch to install: override it for another version or a CUDA build, e.g. make demo TORCH=torch
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
# Tests at the same time: most of them wait for processes.
JOBS ?= 2
BIN := $(VENV)/bin

.PHONY: demo test docs soak bench unit lint clean

demo: $(VENV)/.installed-demo
	$(BIN)/fedpkg run examples/digits/run.yaml
	@echo "To go on: source $(BIN)/activate, then the commands above work as they stand."

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -m "not soak" -n $(JOBS) --dist worksteal --durations=15

# The pages of docs/ as a site; a warning is an error.
docs: $(VENV)/.installed-test
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

unit: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow and not soak" -n $(JOBS) --dist worksteal

# Long matrices, which CI does not run.
soak: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m soak -n $(JOBS) --dist worksteal --durations=15

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-test
	$(BIN)/python tests/benchmarks/run_all.py

# PyTorch first and by itself, so that the plain range in pyproject.toml is satisfied by the build chosen here.
$(VENV)/.installed-torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	touch $@

$(VENV)/.installed-demo: $(VENV)/.installed-torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[datasets]"
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed-torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) .fedpkg build docs/_build docs/reference/generated *.egg-info
