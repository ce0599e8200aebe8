# `make demo` runs a whole federation on a fresh clone, `make test` runs what CI runs.
# TORCH says which PyTorch to install: override it for another version, e.g. make demo TORCH=torch
# With uv on the PATH, uv installs (in seconds, PyTorch in the build that suits this machine); without it, pip does.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
# Tests at the same time: most of them wait for processes.
JOBS ?= 3
BIN := $(VENV)/bin
# What is installed is noted with the checksum of pyproject.toml: the time of a copied or cached .venv proves nothing.
SUM := $(shell cksum < pyproject.toml | cut -d ' ' -f 1)
DEMO := $(VENV)/.installed-demo-$(SUM)
TEST := $(VENV)/.installed-test-$(SUM)
SOAK := $(VENV)/.installed-soak-$(SUM)

UV := $(shell command -v uv 2>/dev/null)
ifneq ($(PIP_FIND_LINKS),)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
ifeq ($(UV),)
WITH := pip; "pip install uv" makes this ten times as fast
MAKE_VENV = $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade pip
INSTALL = $(BIN)/python -m pip install
INSTALL_TORCH = $(INSTALL) "$(TORCH)"
else
WITH := uv
MAKE_VENV = $(UV) venv --quiet --seed --allow-existing --python $(PYTHON) $(VENV)
INSTALL = $(UV) pip install --python $(BIN)/python
# The build without CUDA where there is no GPU, if PyTorch's own index can be reached.
INSTALL_TORCH = $(INSTALL) --torch-backend=auto "$(TORCH)" || \
	{ echo "PyTorch's own index cannot be reached: its build from the usual index is installed."; $(INSTALL) "$(TORCH)"; }
endif

.PHONY: demo test docs soak bench unit lint release clean

demo: $(DEMO)
	@echo "Running examples/digits/run.yaml: 10 clients, 10 rounds."
	$(BIN)/fedpkg run examples/digits/run.yaml
	@echo "To go on: source $(BIN)/activate, then the commands above work as they stand."

test: $(TEST) lint
	$(BIN)/python -m pytest -m "not soak" -n $(JOBS) --dist worksteal --durations=15

# The pages of docs/ as a site; a warning is an error.
docs: $(TEST)
	$(BIN)/python -m sphinx -W --keep-going -q -j auto docs docs/_build/html
	@echo "docs/_build/html/index.html"

unit: $(TEST)
	$(BIN)/python -m pytest -m "not slow and not soak" -n $(JOBS) --dist worksteal

# Long matrices, which CI does not run.
soak: $(SOAK)
	$(BIN)/python -m pytest -m soak -n $(JOBS) --dist worksteal --durations=15

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(TEST)
	$(BIN)/python tests/benchmarks/run_all.py

# PyTorch first and by itself, so that the plain range in pyproject.toml is satisfied by the build chosen here.
$(VENV)/.installed-torch:
	@echo 'Making $(VENV) and installing $(TORCH) with $(WITH).'
	@echo "PyTorch takes the longest: about 200 MB without CUDA, 2 to 3 GB with it."
	@$(MAKE_VENV)
	@$(INSTALL_TORCH)
	@touch $@

$(DEMO): $(VENV)/.installed-torch
	@echo "Installing fedpkg and scikit-learn, which has the images of the example."
	@$(INSTALL) --editable ".[datasets]"
	@touch $@

$(TEST): $(VENV)/.installed-torch
	@echo "Installing fedpkg and what its tests need."
	@$(INSTALL) --quiet --editable ".[test]"
	@touch $@

# If some of it cannot be installed, its tests are skipped.
$(SOAK): $(TEST)
	@echo "Installing the libraries that only long tests need."
	@$(INSTALL) --quiet --editable ".[soak]" || echo "They cannot be installed: their tests are skipped."
	@touch $@

# Installs what the tests need, if that is not there yet.
.PHONY: $(VENV)/.installed-test
$(VENV)/.installed-test: $(TEST)

# All of a release but its upload: wheel and sdist are built, checked, and tried on every Python that uv finds.
release: $(TEST)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python .ci/release.py $(RELEASE)

clean:
	rm -rf $(VENV) .fedpkg build dist docs/_build docs/reference/generated *.egg-info
