# make demo: the main job, from nothing but python3. make test: everything the tests need, and the tests.
# make test-engines: the backends against real engines, in an environment of their own (2 GB, kept in a cache folder).
PYTHON ?= python3
BIN := .venv/bin
# Small matrices gain nothing by threads of their own, which two busy cores pay for dearly.
export OPENBLAS_NUM_THREADS ?= 1

LLMRANK_ENGINES_DIR ?= $(abspath ../shared/engines)
ENGINE_TESTS ?= tests/engines

.PHONY: demo test test-engines lint bench pins clean

demo: .venv/installed
	$(BIN)/llmrank demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto

test-engines:
	$(PYTHON) tests/engines/install.py .venv-engines "$(LLMRANK_ENGINES_DIR)"
	LLMRANK_ENGINES=required .venv-engines/bin/python -m pytest $(ENGINE_TESTS)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-dev
	for script in experiments/benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e .
	touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[dev]'
	touch $@ .venv/installed

pins:
	uv pip compile --python-version 3.11 --universal --extra dev --extra serve --extra report --no-header pyproject.toml -o requirements.txt

clean:
	rm -rf .venv .venv-engines build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
