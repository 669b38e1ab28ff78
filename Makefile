# Needs Python 3.11 or newer, make, g++ and perl; everything else is installed into .venv on first use.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.DELETE_ON_ERROR:
.PHONY: help demo test test-all lint clean

help:
	@echo "make demo      the bundled model on the emulator and on the generated hardware"
	@echo "make test      format, lint, types, and the tests that take minutes at most"
	@echo "make test-all  the same with the slow tests"
	@echo "make lint      format, lint and types only"
	@echo "make clean     removes .venv and everything that tools have written here"

demo: $(STAMP)
	$(BIN)/lpu demo

lint: $(STAMP)
	$(BIN)/ruff format --check --quiet --output-format concise . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	$(BIN)/ruff check --quiet .
	$(BIN)/pyright --pythonpath $(BIN)/python

test: lint
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -q -n 2

clean:
	rm -rf $(VENV) build dist waves lpu-demo .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	@echo "installing into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[sim,synth,test]'
	@touch $@
