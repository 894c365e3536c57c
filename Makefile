# make verify: the main job, end to end. make test: all tests. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BRIDGE := .venv-bridge
# Pages, tutorials and tests are processes of their own, and need not compile what another did. A stated size makes JAX lock it.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax-cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.3
export JAX_COMPILATION_CACHE_MAX_SIZE ?= 4294967296

.PHONY: verify test test-long test-all test-browser test-bridge docs docs-check prove lint setup clean help
.DEFAULT_GOAL := help

help:
	@echo "make verify    audit an embedded model on embedded images; writes fpjax-report/report.html"
	@echo "make test      run the tests (make test-long: those that take longer; CI runs both)"
	@echo "make test-all  run every test there is, for hours"
	@echo "make test-browser  look at the pages in headless Chromium (installs it where apt-get may)"
	@echo "make docs      build the site into build/site (make docs-check: run every block of every page)"
	@echo "make test-bridge  run the tests that need torch and diffusers"
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

# A file's tests stay in one process, which compiles and audits for all of them.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not long"

test-long: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long

test-all: setup
	FPJAX_FULL=1 $(BIN)/python -m pytest -n 2 --dist loadfile --timeout 3600

# What the site and the browser tests need besides, each once.
$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,docs]'
	@touch $@

$(VENV)/.browser: $(VENV)/.docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,browser]'
	@touch $@

# Pages in a real browser: Chromium and its driver from the system, selenium and axe-core from their registries.
test-browser: $(VENV)/.browser
	@{ command -v chromium && command -v chromedriver && command -v npm; } >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium chromium-driver $$(command -v npm >/dev/null || echo npm) >/dev/null; }
	@test -d tests/browser/node_modules/axe-core || npm install --silent --no-save --no-audit --no-fund --prefix tests/browser axe-core@4
	@test -f fpjax-report/report.html || $(BIN)/fpjax audit
	$(BIN)/python -m pytest tests/browser

# The site, in strict mode, with the tutorials run; and every Python and shell block of the README and the docs.
docs: $(VENV)/.docs
	$(BIN)/python docs/build.py

docs-check: PART ?= 1/1
docs-check: setup
	$(BIN)/python docs/run_page.py --installed --jobs 2 --part $(PART)

# What needs torch and diffusers: parity with their schedulers and networks, in an environment of its own.
$(BRIDGE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BRIDGE)
	$(BRIDGE)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,diffusers]'
	@touch $@

test-bridge: $(BRIDGE)/.installed
	HF_HUB_OFFLINE=1 $(BRIDGE)/bin/python -m pytest -n 2 --dist loadfile --timeout 1200 tests/bridge
	HF_HUB_OFFLINE=1 $(BRIDGE)/bin/python docs/run_page.py --installed docs/diffusers.md

# Formal proofs: needs Coq, says so if it is missing, installs nothing.
prove:
	$(MAKE) -C proofs_checks/formal check

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) $(BRIDGE) fpjax-report .jax-cache
