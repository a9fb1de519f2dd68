# Two commands on a fresh machine: `make demo`, `make test`. Both need Python 3.11+ and a package index.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test soak lint format bench clean

demo: .venv/demo
	$(BIN)/landscape demo --out demo
	@echo "Open $(CURDIR)/demo/report.html"

test: .venv/test lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Every reader with 10,000 damaged files (or FUZZ of them), every command with 50 kills: hours.
soak: .venv/test
	$(BIN)/python -m pytest -m soak tests

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# BEAUTY is the data file, CKPT a SASRec trained on it; PEERS, SURFACE_PEERS and HESSIAN_PEERS the Pythons of
# environments with benchmarks/requirements.txt and benchmarks/peers/{surface,hessian}_requirements.txt, if any.
bench: .venv/test
	$(BIN)/python -m benchmarks.train --data $(or $(BEAUTY),Beauty.txt) $(if $(PEERS),--peers $(PEERS))
	$(BIN)/python -m benchmarks.scale
	$(if $(CKPT),$(BIN)/python -m benchmarks.surface --ckpt $(CKPT) --data $(or $(BEAUTY),Beauty.txt) \
		$(if $(SURFACE_PEERS),--peers $(SURFACE_PEERS)))
	$(if $(CKPT),$(BIN)/python -m benchmarks.hessian --ckpt $(CKPT) --data $(or $(BEAUTY),Beauty.txt) \
		$(if $(HESSIAN_PEERS),--peers $(HESSIAN_PEERS)))
	$(if $(CKPT),$(BIN)/python -m benchmarks.parallel --ckpt $(CKPT) --data $(or $(BEAUTY),Beauty.txt))

format: .venv/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv demo
