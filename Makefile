# Everything starts from a bare machine with Python 3.11+, Java 17+ and make. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# pip options for torch alone, for example an index of CPU builds on a Linux machine without a GPU.
TORCH_PIP ?=
# Where `make release` writes the digests of a release's images: staging or prod.
OVERLAY ?= prod
IMAGES ?=

.DEFAULT_GOAL := help
.PHONY: help setup nightly test faults column check compile release clean

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(STAMP) ## the environment, with pinned versions

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" TORCH_PIP="$(TORCH_PIP)" sh scripts/setup.sh
	@touch $@

nightly: $(STAMP) ## simulate feedback and run one night on it, a first champion allowed
	@$(BIN)/goalrank nightly --allow-bootstrap $(ARGS)

test: $(STAMP) ## unit, component, pipeline and cluster tests
	@$(BIN)/python -m pytest $(ARGS)

faults: $(STAMP) ## the faults that must be survived, one numbered line each
	@$(BIN)/python -m pytest tests/faults -q -rsx $(ARGS)

column: $(STAMP) ## the night on the cluster's stores, all on loopback: needs PostgreSQL's and Redis' servers
	@$(BIN)/python -m pytest tests/column -q -rsx $(ARGS)

check: $(STAMP) ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

compile: $(STAMP) ## pipelines/compiled/*.yaml from their source
	@$(BIN)/python -m pipelines.compile

release: $(STAMP) ## IMAGES="goalrank/serve=sha256:... ..." by digest into k8s/overlays/OVERLAY (prod)
	@$(BIN)/python -m scripts.release --overlay "$(OVERLAY)" $(IMAGES)

clean: ## remove the environment (workspaces stay)
	rm -rf $(VENV)
