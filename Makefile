# Two commands on a fresh machine: `make demo`, `make test`. Both need Python 3.11+ and a package index.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test slow soak lint format coverage docs dist audit bench cuda clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/demo  ## synthetic data -> SASRec and SAMRec -> demo/report.html, in under two minutes on two cores
	$(BIN)/landscape demo --out demo
	@echo "Open $(CURDIR)/demo/report.html"

# In the order of names: the files with the fewest tests, which xdist would leave for the end, are the slowest.
TWO := -n 2 --dist loadfile --no-loadscope-reorder
test: .venv/test lint  ## lint, types, tests; with LANDSCAPE_DATA=FOLDER, the tests on real data too
	$(BIN)/python -m pytest $(TWO)

slow: .venv/test  ## the tests that take seconds each, which `make test` leaves out: nine minutes more
	$(BIN)/python -m pytest $(TWO) -m "slow and not soak"

soak: .venv/test  ## every reader with 10,000 damaged files (or FUZZ of them), every command with 50 kills: an hour
	$(BIN)/python -m pytest -m soak -o faulthandler_timeout=0 tests

lint: .venv/test  ## formatting, lint and types, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/test  ## format all files, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: .venv/test  ## which lines no test reaches, processes of their own included: twice the time of the tests
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(TWO) -m "not soak"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

docs: .venv/docs  ## the documentation as a site, build/site/index.html; needs no network once installed
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/python -m mkdocs build --strict
	@echo "Open $(CURDIR)/build/site/index.html"

dist: .venv/test .venv/audit  ## a wheel and an sdist in dist/, with a list of what it needs (SBOM)
	$(BIN)/cyclonedx-py requirements constraints.txt --pyproject pyproject.toml --output-file sbom.cdx.json
	$(BIN)/python -m build --no-isolation

# Known holes of the versions in constraints.txt, and their licences.
audit:  ## known vulnerabilities and licences of what is installed; without a network it says so and passes
	@if ! $(PYTHON) -c "import json, urllib.request as u; \
	assert json.load(u.urlopen('https://pypi.org/pypi/torch/2.9.0/json', timeout=10))['vulnerabilities']" 2>/dev/null; \
	then echo "audit: SKIPPED, the database of vulnerabilities at pypi.org cannot be reached"; else $(MAKE) --no-print-directory .venv/audit && \
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off && \
	$(BIN)/pip-licenses --order license --format markdown; fi

# BEAUTY is the data file, CKPT a SASRec trained on it; PEERS, SURFACE_PEERS and HESSIAN_PEERS the Pythons of
# environments with benchmarks/requirements.txt and benchmarks/peers/{surface,hessian}_requirements.txt, if any.
bench: .venv/test  ## time and memory, into benchmarks/results/; with BEAUTY=FILE, CKPT=FILE, PEERS=PYTHON
	$(BIN)/python -m benchmarks.train --data $(or $(BEAUTY),Beauty.txt) $(if $(PEERS),--peers $(PEERS))
	$(BIN)/python -m benchmarks.scale
	$(if $(CKPT),$(BIN)/python -m benchmarks.surface --ckpt $(CKPT) --data $(or $(BEAUTY),Beauty.txt) \
		$(if $(SURFACE_PEERS),--peers $(SURFACE_PEERS)))
	$(if $(CKPT),$(BIN)/python -m benchmarks.hessian --ckpt $(CKPT) --data $(or $(BEAUTY),Beauty.txt) \
		$(if $(HESSIAN_PEERS),--peers $(HESSIAN_PEERS)))
	$(if $(CKPT),$(BIN)/python -m benchmarks.parallel --ckpt $(CKPT) --data $(or $(BEAUTY),Beauty.txt))

cuda:  ## the tests and timings that need a CUDA device, with a PYTHON whose torch has one; with BEAUTY=FILE, training
	$(PYTHON) -m benchmarks.cuda $(if $(BEAUTY),--data $(BEAUTY))

clean:  ## remove what the others made
	rm -rf .venv demo build dist

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/test .venv/docs .venv/audit: .venv/%: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[$*]'
	@touch $@
