# `make help` lists the targets. Everything lives in .venv; nothing is installed on the machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup up test freshness soak fuzz bench check format lock docs screenshots compose-test audit sbom

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## .venv with the locked dependencies and the project installed

$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("tokenkeeper needs Python 3.11 or newer; this is %d.%d. Try: make setup PYTHON=python3.13" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

up: $(READY) ## run the whole product in the foreground, with a HubSpot simulator where no app is configured
	@exec $(BIN)/tokenkeeper up

test: $(READY) ## every test, against real PostgreSQL, Valkey, Celery and HTTP
	$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

freshness: $(READY) ## two minutes of reading 50 tokens ten times a second, each checked with HubSpot
	$(BIN)/python -m pytest -q tests/long/test_freshness.py

soak: $(READY) ## an outage with 5,000 connections, then ten minutes of random faults on 2,000 connections of 30-second tokens (SEED=… SOAK_SECONDS=…)
	$(BIN)/python -m pytest -q tests/long/test_outage.py tests/long/test_soak.py

fuzz: $(READY) ## 40,000 requests that make no sense to the application, 4,000 of them over sockets to gunicorn (FUZZ_REQUESTS=…)
	FUZZ_REQUESTS=$${FUZZ_REQUESTS:-40000} $(BIN)/python -m pytest -q --timeout=3000 tests/security/test_fuzz_web.py

bench: $(READY) ## how fast, how late, at what cost, up to 1,000,000 connections: three quarters of an hour (QUICK=1: two minutes, a first look)
	@exec $(BIN)/python -m bench $(if $(filter-out 0,$(QUICK)),--quick)

check: $(READY) ## formatter, linter, types, import contracts, lock file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/python tools/lock.py --check

format: $(READY) ## let the formatter and the linter mend what they can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY) ## bring the lock files in step with pyproject.toml
	$(BIN)/python tools/lock.py

docs: $(READY) ## write .env.example, docs/settings.md and docs/command.md again, from the code
	PYTHONPATH=. $(BIN)/python -m tools.generated_docs

screenshots: $(READY) ## render docs/images anew, where Chromium is found
	$(BIN)/python -m tools.screenshots

audit: $(READY) ## known vulnerabilities of what is locked, by the package index (2: it does not tell)
	$(BIN)/python tools/audit.py

sbom: $(READY) ## what the image is made of, as CycloneDX JSON, into sbom/
	PYTHONPATH=. $(BIN)/python -m tools.sbom

compose-test: $(READY) ## docker-compose up, install, refresh, down, up again (skips where there is no engine)
	$(BIN)/python tools/compose_test.py
