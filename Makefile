# make verify: the main job, end to end. make test: all tests. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

TORCH := .venv-diffusers

.PHONY: verify test test-all test-bridge prove lint setup clean help
.DEFAULT_GOAL := help

help:
	@echo "make verify    audit an embedded model on embedded images; writes fpjax-report/report.html"
	@echo "make test      run the tests (make test-all: the long ones too)"
	@echo "make test-bridge    run the tests that need torch and diffusers, in an environment of their own"
	@echo "make prove     check the formal proofs with Coq"
	@echo "make lint      ruff and pyright"

# The stamp is newer than pyproject.toml once everything is installed, so that a second call starts at once.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fpjax needs Python 3.11 or newer; call make with PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@

setup: $(VENV)/.installed

verify: setup
	$(BIN)/fpjax audit

test: setup
	$(BIN)/python -m pytest -n 2

test-all: setup
	FPJAX_FULL=1 $(BIN)/python -m pytest -n 2 --timeout 3600

# torch and diffusers live in an environment of their own, so that the other tests show that nothing else needs them.
$(TORCH)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,diffusers]'
	@touch $@

test-bridge: $(TORCH)/.installed
	HF_HUB_OFFLINE=1 $(TORCH)/bin/python -m pytest -n 2 --timeout 1200 tests/bridge
	HF_HUB_OFFLINE=1 $(TORCH)/bin/python docs/run_page.py --installed docs/diffusers.md

# Formal proofs: needs Coq, says so if it is missing, installs nothing.
prove:
	$(MAKE) -C proofs_checks/formal check

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) $(TORCH) fpjax-report
