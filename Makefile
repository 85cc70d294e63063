# `make` does its own set-up: see .ci/bootstrap.py. Once that is done, its check takes a tenth of a second.

BIN := .venv/bin
PYTHON ?= $(shell test -x $(BIN)/python && echo $(BIN)/python || echo python3)
SET_UP = @$(PYTHON) .ci/bootstrap.py
ARGS ?=
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup serve test test-slow check format demo-model bench bench-peers docker-test lock clean

help: ## list these
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## set up .venv, and nothing else
	$(SET_UP)

serve: ## serve; with an empty store the bundled demo model. Options in ARGS="..."
	$(SET_UP)
	@exec $(BIN)/brim serve $(ARGS)

test: ## run the tests, but for the slow ones. More options in PYTEST_ARGS="..."
	$(SET_UP) --dev
	@$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: ## run the slow tests
	$(SET_UP) --dev
	@$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

check: ## check format, lint and types
	$(SET_UP) --dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: ## put the code into its standard format
	$(SET_UP) --dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo-model: ## train the demo model anew (installs PyTorch)
	$(SET_UP) --train
	$(BIN)/python -m demo.build $(ARGS)

bench: bench-peers ## measure brim beside llama-server and llama-cpp-python's server, into benchmarks/results
	@$(BIN)/python -m benchmarks.serving $(ARGS)

bench-peers: ## build the servers that brim is measured beside, once
	$(SET_UP) --dev
	@$(BIN)/python -m benchmarks.peers

docker-test: ## build the container image and talk to it (root on Debian; no Docker daemon)
	docker/test

LOCK = uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --group build

lock: ## move the lock files to the newest versions that pyproject.toml allows
	$(SET_UP) --dev
	$(BIN)/$(LOCK) pyproject.toml --output-file requirements.lock
	$(BIN)/$(LOCK) --extra dev --constraints requirements.lock pyproject.toml --output-file requirements-dev.lock

clean: ## remove .venv and everything that was made here
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
