# make demo: the main job on real input, with no cloud account.   make test: the tests.   make check: what CI runs.

SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# pip must not ask whether it is up to date, and must not compile what nothing imports.
PIP_FLAGS := --disable-pip-version-check --quiet
# Twice the cores of a small machine: much of a test is waiting.
WORKERS ?= 4
# Prose is wrapped by mdformat, which does not know where Chinese lines end.
PAGES := README.md CONTRIBUTING.md deployments/README.md docs

# Without it, each of the processes that tests start compiles this package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-worker test retest check lint types bench chaos deployed network notebooks languages clean

demo: $(READY)
	@$(BIN)/ags-flows demo

# Whole flows in sandboxes: a work pool of type `ags`, its worker, and three flow runs.
demo-worker: $(READY)
	@$(BIN)/ags-flows demo --worker --directory .demo-worker

# Prefect writes to its home while it is imported: the tests do not use the home of the user.
test: $(READY)
	PREFECT_HOME=$(abspath $(VENV))/prefect-home $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

# What failed in the last `make test`, with the machine to itself.
retest: $(READY)
	PREFECT_HOME=$(abspath $(VENV))/prefect-home $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

check: lint types test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mdformat --check $(PAGES)

# The package, and what its signatures promise.
types: $(READY)
	$(BIN)/mypy
	$(BIN)/mypy tests/typing

# The model on many random interleavings, a batch of ten thousand items that is killed three times, and two hundred real
# flows that are killed: an hour and more.
chaos: $(READY)
	MODEL_EXAMPLES=$${MODEL_EXAMPLES:-50000} $(BIN)/python -m pytest tests/ownership/test_model.py -s --timeout 3600
	BATCH_ITEMS=$${BATCH_ITEMS:-10000} BATCH_SANDBOXES=$${BATCH_SANDBOXES:-16} \
		$(BIN)/python -m pytest tests/resilience/test_batch.py -s --timeout 7200
	DEPLOYED=1 CHAOS_RUNS=$${CHAOS_RUNS:-200} $(BIN)/python -m pytest tests/resilience/test_chaos.py -s

# Real servers, workers, a browser, PostgreSQL and Redis: some ten minutes.
deployed: $(READY)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	$(BIN)/python -m pip install $(PIP_FLAGS) playwright prefect-redis
	DEPLOYED=1 $(BIN)/python -m pytest tests/deployments/deployed -s $(PYTEST_ARGS)
	DEPLOYED=1 $(BIN)/python -m pytest -m long tests $(PYTEST_ARGS)

# What installs packages from an index inside of sandboxes.
network: $(READY)
	PACKAGE_INDEX=1 $(BIN)/python -m pytest tests/swerex -k package_index

# Every test of code cells in all six languages, none left out. Installs a JDK and R (as root, on Debian and Ubuntu),
# deno and kernels.
languages: $(READY)
	@command -v javac >/dev/null && test -d /usr/lib/R/site-library/IRkernel || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends default-jdk-headless r-cran-irkernel; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	$(BIN)/python -m pip install $(PIP_FLAGS) deno jjava bash-kernel
	PREFECT_HOME=$(abspath $(VENV))/prefect-home LANGUAGES=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup \
	  tests/emulator/code_interpreter tests/tasks/test_code.py $(PYTEST_ARGS)

bench: $(READY)
	@$(BIN)/python -m bench $(AREAS)

# Updates the outputs of the notebooks.
notebooks: $(READY)
	@$(BIN)/python examples/execute.py examples/*.ipynb

clean:
	rm -rf $(VENV) .demo .demo-worker .bench

$(READY): pyproject.toml
	@.ci/environment $(PYTHON) $(VENV)
	@touch $(READY)
