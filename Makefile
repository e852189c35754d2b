# make samples: every sampler through both pipelines, into output/.   make test: the tests.   make types: pyright.
# make published: the pictures of make samples made anew, as those that the project publishes.
# make parity, make bench, make mutants: some of the measurements, made anew; minutes, minutes, hours.
# make figures: all figures of README and docs, from docs/data. What that lacks is measured: three hours if it lacks all,
# and hours more for the mutants. python -m benchmarks list: what there is.
# make check: ruff and the imports, as make test does first. make coverage: make test, and what no test runs.
# make docs: the site, into site/.   make wheel: wheel and sdist, into dist/, tried in a fresh environment.
# make test-pages: the pages in a headless Chromium, the system's or that of CHROME.
# All make the virtual environment .venv first, with the command .venv/bin/k-diffusing; a second call re-uses it.
# make samples TORCH=cpu (cu126, ...): with PyTorch's own wheels of that name in place of PyPI's.
PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q

ifneq ($(and $(TORCH),$(wildcard $(VENV)/.installed)),)
ifneq ($(TORCH),$(shell cat $(VENV)/.installed))
$(error $(VENV) has another torch than TORCH=$(TORCH): make clean first)
endif
endif

.PHONY: samples published test check coverage test-pages types docs wheel parity bench figures mutants lint clean

samples: $(VENV)/.installed
	$(BIN)/python test.py
	$(BIN)/python test_flux.py

published: $(VENV)/.dev
	$(BIN)/python -m benchmarks run published --again

test: check
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report term:skip-covered

# PIP_CONSTRAINT=lowest.txt make test: with the lowest version of each requirement. By uv, as pip searches for minutes.
lowest.txt: pyproject.toml
	uv pip compile --quiet --no-header --no-annotate --resolution lowest-direct --python $(PYTHON) pyproject.toml -o $@

test-pages: $(VENV)/.dev $(VENV)/.pages $(VENV)/.docs
	$(BIN)/python -m pytest -m browser tests/pages_in_browser

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

wheel: $(VENV)/.dev
	rm -rf build dist
	$(BIN)/python -m build --quiet --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/support/try_wheel.py dist

parity: $(VENV)/.dev
	$(BIN)/python -m benchmarks run parity --again

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks run step_cost grid_cost --again

figures: $(VENV)/.dev
	$(BIN)/python -m benchmarks run all

mutants: $(VENV)/.dev
	nice $(BIN)/python -m benchmarks run mutants --again

# k-diffusion without its own requirements: sampling needs none of them, and one wants numpy < 2.
$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo 'This downloads 3 GB if $(VENV) has no torch yet, with TORCH=cpu 0.3 GB, and says nothing for minutes.'
	$(if $(TORCH),$(PIP) --index-url $(TORCH_INDEX)/$(TORCH) "$$(grep '^torch>' requirements.txt)")
	$(PIP) -e .
	$(PIP) --no-deps 'k-diffusion>=0.1.1,<0.2'
	$(if $(TORCH),echo $(TORCH) >,touch) $@

$(VENV)/.%: $(VENV)/.installed
	$(PIP) -e '.[$*]'
	touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV)
