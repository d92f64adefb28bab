# Needs Python 3.11 or newer and make. The first target that is asked for makes the virtual environment.
PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
SPEC    ?= specs/placement.yaml

BIN   := $(VENV)/bin
READY := $(VENV)/ready

.DEFAULT_GOAL := help
.PHONY: help environment sweep test gallery blocks reference bench peers lint types layers clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

environment: $(READY) ## the virtual environment with everything in it

$(READY): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	@touch $@

sweep: $(READY) ## run the study specs/placement.yaml (another: SPEC=...)
	$(BIN)/ablate sweep $(SPEC)

# Threads are 1 because the workers already fill the cores, and because bits depend on the number of threads.
test: $(READY) ## the tests but for the slow ones (more processes: WORKERS=...)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m 'not slow'

gallery: $(READY) ## write docs/gallery.md anew
	OMP_NUM_THREADS=1 $(BIN)/python docs/build_gallery.py

blocks: $(READY) ## write docs/blocks.md anew
	OMP_NUM_THREADS=1 $(BIN)/ablate blocks --markdown > docs/blocks.md

reference: $(READY) ## write docs/spec.md and docs/commands.md anew
	COLUMNS=100 $(BIN)/python docs/build_reference.py

bench: $(READY) ## how fast variants are built, certified and counted (no test depends on it)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/certify_space.py

peers: $(READY) ## training by ablate against training by others (takes long; close what else runs)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c .ci/constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/training.py

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy

layers: $(READY) ## import-linter: who may import whom
	$(BIN)/lint-imports

clean: ## remove the environment and the caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
