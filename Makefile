# `make demo` and `make test` need Python 3.11 or later and make, nothing else; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=

.PHONY: setup demo test lint wheel clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ff3d needs Python 3.11 or later, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python scripts/train_shape.py meshes/bunny.obj

test: setup lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# builds the wheel into dist/, installs it in an environment of its own outside the checkout, and runs it there
wheel: setup
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet $(PIP_ARGS) --no-deps --wheel-dir dist .
	$(BIN)/python scripts/check_wheel.py dist/*.whl

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
