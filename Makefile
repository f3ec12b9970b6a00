# Everything starts from a bare machine with Python 3.11+, Java 17+ and make. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# pip options for torch alone, for example an index of CPU builds on a Linux machine without a GPU.
TORCH_PIP ?=
# The same for the image that trains, where that one is to have CUDA and the others not.
TRAIN_TORCH_PIP ?= $(TORCH_PIP)
# Where `make release` writes the digests of a release's images: staging or prod.
OVERLAY ?= prod
IMAGES ?=
# Nights in a row of `make column`: the second goes on from the first, at the price of another two.
COLUMN_NIGHTS ?= 1
# Processes that `make test` and `make faults` spread their files over; 0: pytest's own alone, as a debugger wants it.
AT_ONCE ?= 2
SPREAD := -n $(AT_ONCE) --dist loadfile --no-loadscope-reorder
# What builds the images where a registry can be reached: docker or podman.
ENGINE ?= docker

.DEFAULT_GOAL := help
.PHONY: help setup nightly test faults column browser check compile docs site release images containers sbom clean

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(STAMP) ## the environment, with pinned versions

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" TORCH_PIP="$(TORCH_PIP)" sh scripts/setup.sh
	@touch $@

nightly: $(STAMP) ## simulate feedback and run one night on it, a first champion allowed
	@$(BIN)/goalrank nightly --allow-bootstrap $(ARGS)

test: $(STAMP) ## unit, component, pipeline and cluster tests
	@$(BIN)/python -m pytest $(SPREAD) $(ARGS)

faults: $(STAMP) ## the faults that must be survived, one numbered line each
	@$(BIN)/python -m pytest tests/faults -q -rsx $(SPREAD) $(ARGS)

column: $(STAMP) ## COLUMN_NIGHTS (1) on the cluster's stores, all on loopback: needs PostgreSQL's and Redis' servers
	@COLUMN_NIGHTS="$(COLUMN_NIGHTS)" $(BIN)/python -m pytest tests/column -q -rsx $(ARGS)

browser: $(STAMP) ## the pages in a headless Chromium: errors, requests, accessibility, screenshots (chromium)
	@$(BIN)/python -m pytest tests/e2e -q -rsx $(ARGS)

check: $(STAMP) ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

compile: $(STAMP) ## pipelines/compiled/*.yaml from their source
	@$(BIN)/python -m pipelines.compile

docs: $(STAMP) ## what the documents take from the code: docs/configuration.md, docs/images/*.svg
	@$(BIN)/python -m scripts.configuration_page
	@$(BIN)/python -m scripts.figures

site: $(STAMP) ## the documents as a site, into build/site/; a broken link fails
	@$(BIN)/mkdocs build --strict --quiet

release: $(STAMP) ## IMAGES="goalrank/serve=sha256:... ..." by digest into k8s/overlays/OVERLAY (prod)
	@$(BIN)/python -m scripts.release --overlay "$(OVERLAY)" $(IMAGES)

images: $(STAMP) ## goalrank/data, train and serve of this version, by ENGINE (docker); BUILD holds more options
	@version=$$($(BIN)/python -c 'import goalrank; print(goalrank.__version__)'); \
	for image in data train serve; do \
		if [ $$image = train ]; then torch="$(TRAIN_TORCH_PIP)"; else torch="$(TORCH_PIP)"; fi; \
		$(ENGINE) build --file components/images/$$image.Dockerfile --build-arg TORCH_PIP="$$torch" \
			--tag goalrank/$$image:$$version $(BUILD) . || exit 1; \
	done

containers: $(STAMP) ## images built here and a tiny night run in them, compared with one without (root, podman)
	@TORCH_PIP="$(TORCH_PIP)" $(BIN)/python -m pytest tests/containers -q -rs $(ARGS)

sbom: $(STAMP) ## bills of materials of this environment and of the images that are here, into build/sbom/
	@$(BIN)/python -m scripts.sbom --output build/sbom/environment.cdx.json
	@version=$$($(BIN)/python -c 'import goalrank; print(goalrank.__version__)'); \
	for image in data train serve; do \
		if $(ENGINE) image inspect goalrank/$$image:$$version >/dev/null 2>&1; then \
			$(BIN)/python -m scripts.sbom --engine $(ENGINE) --image goalrank/$$image:$$version \
				--output build/sbom/$$image.cdx.json || exit 1; \
		else echo "goalrank/$$image:$$version is not on this machine ($(ENGINE)): no bill of it" >&2; fi; \
	done

clean: ## remove the environment (workspaces stay)
	rm -rf $(VENV)
