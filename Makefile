# `make help` lists the targets. Everything lives in .venv; nothing is installed on the machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Where it is set, every process of every run compiles all tests again: five seconds of CPU time each.
export PYTHONDONTWRITEBYTECODE :=

# Browsers and examples run no line that these do not run.
COVERAGE_TESTS := tests/security tests/faults tests/journeys tests/integration tests/unit

.DEFAULT_GOAL := help
.PHONY: help setup up test test-fast coverage freshness soak fuzz bench check format lock docs screenshots compose-test audit sbom

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## .venv with the locked dependencies and the project installed

$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("tokenkeeper needs Python 3.11 or newer; this is %d.%d. Try: make setup PYTHON=python3.13" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

up: $(READY) ## run the whole product in the foreground, with a HubSpot simulator where no app is configured (ARGS=--yes)
	@exec $(BIN)/tokenkeeper up $(ARGS)

# Eight, on two cores too: tests also wait for servers. Six left the cores idle a tenth of the time, eight a twentieth.
test: $(READY) ## every test, against real PostgreSQL, Valkey, Celery and HTTP
	$(BIN)/python -m pytest -n 8 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(READY) ## the unit tests alone: no server, half a minute on an idle machine
	$(BIN)/python -m pytest -q -n 2 tests/unit $(ARGS)

coverage: $(READY) ## lines of the product that no test runs, in twice the time of the tests
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(COVERAGE_TESTS) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

freshness: $(READY) ## reads 50 tokens ten times a second for two minutes and checks each with the simulator
	$(BIN)/python -m pytest -q tests/long/test_freshness.py

soak: $(READY) ## an outage with 5,000 connections, then ten minutes of random faults on 2,000 connections (SEED=… SOAK_SECONDS=…)
	$(BIN)/python -m pytest -q tests/long/test_outage.py tests/long/test_soak.py

fuzz: $(READY) ## 40,000 random requests to web, and 4,000 over sockets to gunicorn (FUZZ_REQUESTS=…)
	FUZZ_REQUESTS=$${FUZZ_REQUESTS:-40000} $(BIN)/python -m pytest -q --timeout=3000 tests/security/test_fuzz_web.py

bench: $(READY) ## throughput, lateness and cost up to 1,000,000 connections, in 20 minutes (QUICK=1: 4; SIZE=10000000: cost at that size)
	@exec $(BIN)/python -m bench $(if $(filter-out 0,$(QUICK)),--quick) $(if $(SIZE),--size "$(SIZE)")

check: $(READY) ## formatter, linter, types, import contracts, words, lengths of functions, lock file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/python tools/check_words.py
	$(BIN)/python tools/check_structure.py
	$(BIN)/python tools/lock.py --check

format: $(READY) ## format the code and apply the linter's automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY) ## write the lock files from pyproject.toml
	$(BIN)/python tools/lock.py

docs: $(READY) ## write .env.example, docs/settings.md and docs/command.md from the code
	PYTHONPATH=. $(BIN)/python -m tools.generated_docs

screenshots: $(READY) ## render docs/images, where Chromium is found
	$(BIN)/python -m tools.screenshots

audit: $(READY) ## known vulnerabilities of the locked packages (exit status 2: the package index has no data)
	$(BIN)/python tools/audit.py

sbom: $(READY) ## write a software bill of materials of the image, as CycloneDX JSON, into sbom/
	PYTHONPATH=. $(BIN)/python -m tools.sbom

compose-test: $(READY) ## test docker-compose.yml with a Docker engine (skips where there is none)
	$(BIN)/python tools/compose_test.py
