# make samples: every sampler through both pipelines, into output/.   make test: the tests.   make types: pyright.
# make published: the pictures of make samples made anew, as those that the project publishes.
# make parity: docs/parity.md, measured anew.   make bench: docs/step_cost.md and docs/grid_cost.md.
# make figures: all pictures of README and docs. Measurements that docs/*.json lack are made: two hours if all do.
# make mutants: how many small changes to six parts of the package the tests notice: hours; make mutants PARTS=noise: one.
# make docs: the site, into site/.   make test-pages: the pages in a headless Chromium, the system's or that of CHROME.
# All make the virtual environment .venv first, with the command .venv/bin/k-diffusing; a second call re-uses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: samples published test test-pages types docs parity bench figures mutants lint clean

samples: $(VENV)/.installed
	$(BIN)/python test.py
	$(BIN)/python test_flux.py

published: $(VENV)/.installed
	rm -f output/published.sha256 output/*-manifest.json
	$(BIN)/python test.py
	$(BIN)/python test_flux.py
	$(BIN)/python -m k_diffusing.render.published

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-pages: $(VENV)/.pages
	$(BIN)/python -m pytest -m browser tests/pages_in_browser

types: $(VENV)/.installed
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

parity: $(VENV)/.installed
	$(BIN)/python benchmarks/parity.py > docs/parity.md.new
	mv docs/parity.md.new docs/parity.md

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/step_cost.py > docs/step_cost.md.new
	mv docs/step_cost.md.new docs/step_cost.md
	$(BIN)/python benchmarks/grid_cost.py > docs/grid_cost.md.new
	mv docs/grid_cost.md.new docs/grid_cost.md
	cat docs/step_cost.md docs/grid_cost.md

figures: samples
	$(BIN)/python benchmarks/older_flux.py
	$(BIN)/python benchmarks/samplers_evaluations.py
	$(BIN)/python benchmarks/convergence.py
	$(BIN)/python benchmarks/caption_adherence.py
	$(BIN)/python -m benchmarks run samplers
	$(BIN)/python benchmarks/sigma_grids.py

mutants: $(VENV)/.installed
	nice $(BIN)/python benchmarks/mutants.py $(PARTS)

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
