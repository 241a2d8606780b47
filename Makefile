# `make demo` and `make test` need Python 3.11 or later and make, nothing else; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP_ARGS ?=
# processes that run tests, each with one thread; more arguments for pytest
WORKERS ?= logical
TESTS ?=
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal

.PHONY: setup open3d demo test quick bench lint wheel docs examples tables clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ff3d needs Python 3.11 or later, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

# the third oracle, some 400 MB; on a bare Debian it needs libgl1, libusb-1.0-0 and libgomp1 as well
open3d: setup
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[open3d]'
	$(BIN)/python -c 'import open3d'

demo: setup
	$(BIN)/python scripts/train_shape.py meshes/bunny.obj

test: lint
	$(PYTEST) $(TESTS)

# while working: the linters, and neither slow tests nor those in a browser
quick: lint
	$(PYTEST) -q -m 'not slow and not browser' $(TESTS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# what measures, a small slice of each on the sample meshes, some minutes in all; the docs' figures say how they were made
bench: setup
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/arithmetic.py --seconds 10
	$(BIN)/python benchmarks/labels.py meshes/bunny.obj --millions 8 --repeats 2
	$(BIN)/python benchmarks/distances.py meshes/bunny.obj --repeats 2
	$(BIN)/python benchmarks/extraction.py knot --resolutions 128 256 --dense-up-to 128
	$(BIN)/python benchmarks/surfaces.py meshes/knot.obj --resolutions 128
	$(BIN)/python benchmarks/guarantees.py meshes/bunny.obj
	$(BIN)/python benchmarks/broken.py --cases 20 --alternatives libigl

# the pages of docs/ as a site in site/: without the network, and without a warning
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open site/index.html"

# runs every command's examples, and writes docs/commands.md with what they print; over half an hour
examples: setup
	$(BIN)/python scripts/run_examples.py

# the tables of the docs, from the rows in docs/rows/
tables: setup
	$(BIN)/python scripts/make_tables.py

# builds the wheel into dist/, installs it in an environment of its own outside the checkout, and uses it there
wheel: setup
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet $(PIP_ARGS) --no-deps --wheel-dir dist .
	$(BIN)/python scripts/check_wheel.py dist/*.whl

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
