# make samples: every sampler through both pipelines, into output/.   make test: the tests.   make types: pyright.
# make published: the pictures of make samples made anew, as those that the project publishes.
# make parity, make bench, make mutants: some of the measurements, made anew; minutes, minutes, hours.
# make figures: all figures of README and docs, from docs/data. What that lacks is measured: three hours if it lacks all,
# and hours more for the mutants. python -m benchmarks list: what there is.
# make check: ruff and the imports, as make test does first. make coverage: make test, and what no test runs.
# make docs: the site, into site/.   make test-pages: the pages in a headless Chromium, the system's or that of CHROME.
# All make the virtual environment .venv first, with the command .venv/bin/k-diffusing; a second call re-uses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: samples published test check coverage test-pages types docs parity bench figures mutants lint clean

samples: $(VENV)/.installed
	$(BIN)/python test.py
	$(BIN)/python test_flux.py

published: $(VENV)/.installed
	$(BIN)/python -m benchmarks run published --again

test: check
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

coverage: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report term:skip-covered

# PIP_CONSTRAINT=lowest.txt make test: with the lowest version of each requirement.
lowest.txt: requirements.txt
	sed -E 's/>=([^,;]+),[^;]*/==\1/' requirements.txt > $@

test-pages: $(VENV)/.pages $(VENV)/.docs
	$(BIN)/python -m pytest -m browser tests/pages_in_browser

types: $(VENV)/.installed
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

parity: $(VENV)/.installed
	$(BIN)/python -m benchmarks run parity --again

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks run step_cost grid_cost --again

figures: $(VENV)/.installed
	$(BIN)/python -m benchmarks run all

mutants: $(VENV)/.installed
	nice $(BIN)/python -m benchmarks run mutants --again

$(VENV)/.installed: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12) and "k-diffusion needs Python 3.11 or 3.12: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.pages: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-build-isolation -e '.[pages]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-build-isolation -e '.[docs]'
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV)
