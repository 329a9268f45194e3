# Each target does all its own set-up: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Debian's Chromium and the extras; what cannot be installed makes the tests skip with the reason.
BROWSER := $(VENV)/.browser

# Sphinx and its theme, for `make docs` alone.
DOCS := $(VENV)/.docs

.PHONY: demo demo-dynamics test lint types pytest test-browser validate bench docs format clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Nets this small gain nothing from a second thread, and lose much where the cores are shared.
demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/deepspec demo --out runs/demo --overwrite

# Three sample sizes, four epochs, two seeds; a sweep that was stopped goes on.
demo-dynamics: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/deepspec sweep demo --out runs/demo-sweep
	OMP_NUM_THREADS=1 $(BIN)/deepspec dynamics runs/demo-sweep --out runs/demo-dynamics --overwrite

test: lint types pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# One thread a worker: the tests are many and small, and the workers share the cores.
pytest: $(READY)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest -q -n auto

$(BROWSER): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,explore,browser]'
	command -v chromium chromedriver || (apt-get update && apt-get install -y --no-install-recommends chromium chromium-driver) || echo 'install chromium and chromium-driver by hand'
	touch $@

test-browser: $(BROWSER)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m browser tests

validate: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m validation run --all --profile quick

bench: $(READY)
	$(PYTHON) bench/run.py

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

# Offline, with warnings as errors; the gallery's scripts are run.
docs: $(DOCS)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --fail-on-warning --keep-going -q docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) bench/.venv runs docs/_build docs/examples docs/reference *.egg-info .pytest_cache .mypy_cache .ruff_cache
