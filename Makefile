# Everything happens in .venv, which the first target makes. PYTHON chooses the interpreter (>= 3.11).
PYTHON ?= python3
BIN := .venv/bin
# Workers of the test run; one thread each, so that they do not fight over the cores.
TEST_WORKERS ?= auto

.PHONY: try test lint types docs ci clean

try: .venv/installed
	$(BIN)/avtune try

test: .venv/developer
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile -q

lint: .venv/developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/developer
	$(BIN)/mypy

docs: .venv/developer
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

# A test builds the documentation, warnings being errors.
ci: lint types test

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "avtune needs Python 3.11 or newer; run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

.venv/developer: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv docs/_build docs/api build dist
