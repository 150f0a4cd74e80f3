# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
UV_VERSION := 0.13.9
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Certificates of the system, as pip uses them; where uv fails all the same, pip does its work, slower.
export UV_SYSTEM_CERTS ?= 1
# uv does not read pip's settings: an index that was set for pip is passed on.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
export OMP_NUM_THREADS ?= 1
PORT ?= 8000
TESTS ?= tests --ignore=tests/e2e
# What real nodes and images need: a program, and the package that has it in Debian and Ubuntu.
E2E_NEEDS := containerd:containerd runc:runc /usr/lib/cni/ptp:containernetworking-plugins iptables:iptables \
  conntrack:conntrack ip:iproute2 buildah:buildah debootstrap:debootstrap
CRDS := manifests/crd/servingdeployments.yaml charts/ascend-serving/files/servingdeployments.yaml

.PHONY: help setup lint fix test test-lowest coverage e2e-deps e2e images cluster bench demo manifests lock clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(INSTALLED) ## Make the virtual environment with exactly the locked packages

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python >= 3.11 is needed; name one with PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "the venv module is missing (Debian: apt install python3-venv)" >&2; exit 2; }
	@echo "setting up $(VENV) (the first time fetches about 3 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip sync --quiet --require-hashes requirements.lock \
	  || $(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --editable . \
	  || $(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

lint: $(INSTALLED) ## Check format, style, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@for crd in $(CRDS); do \
	  $(BIN)/python -m serving_contract.crd | diff $$crd - || { echo "$$crd: run \`make manifests\`" >&2; exit 1; }; \
	done

fix: $(INSTALLED) ## Format, and mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(INSTALLED) ## Run the tests (TESTS=path to choose)
	$(BIN)/pytest -q $(TESTS)

test-lowest: requirements.lock ## Run the tests with the lowest versions that pyproject allows
	@$(MAKE) --no-print-directory setup
	@test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	VIRTUAL_ENV=$(abspath .venv-lowest) $(BIN)/uv pip install --quiet --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/pytest -q $(TESTS)

coverage: $(INSTALLED) ## Run the tests and show what they do not reach
	$(BIN)/pytest -q --cov --cov-report=term-missing:skip-covered $(TESTS)

e2e-deps: ## Install what real nodes need and is not there (root; Debian packages)
	@missing=$$(for need in $(E2E_NEEDS); do command -v $${need%%:*} >/dev/null || echo $${need#*:}; done); \
	  test -n "$$missing" || exit 0; \
	  test "$$(id -u)" = 0 || { echo "e2e-deps: installing" $$missing "needs root: sudo make e2e-deps" >&2; exit 2; }; \
	  command -v apt-get >/dev/null || { echo "e2e-deps: no apt-get here; install" $$missing "another way" >&2; exit 2; }; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  install="apt-get install -y -qq --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300"; \
	  $$install $$missing >/dev/null 2>&1 || { apt-get update -qq && $$install $$missing >/dev/null; }

e2e: $(INSTALLED) ## Run the whole system on real nodes of this machine (root; TESTS=path to choose)
	@$(BIN)/python -m tests.e2e $(if $(filter command line environment,$(origin TESTS)),$(TESTS))

images: $(INSTALLED) ## Build the images with buildah and print their sizes (root)
	@$(BIN)/python -m tests.images

cluster: $(INSTALLED) ## Run a Kubernetes cluster until Ctrl-C (NODES=2 [DEVICES=8]: real ones, root); prints its KUBECONFIG
	@$(BIN)/python -m tests.cluster $(if $(NODES),--nodes $(NODES)) $(if $(DEVICES),--devices $(DEVICES))

bench: $(INSTALLED) ## Measure speed and memory (ONLY=engine,router,...); prints machine and ratios
	$(BIN)/python -m tests.bench $(ONLY)

demo: $(INSTALLED) ## Serve a tiny model with dp=2 on the CPU and ask it (DETACH=1: then stop; PORT=N)
	@$(BIN)/python -m serving_cli.demo --port $(PORT) $(if $(filter 1,$(DETACH)),--detach)

manifests: $(INSTALLED) ## Generate the CRD from the models
	$(BIN)/python -m serving_contract.crd | tee $(CRDS) > /dev/null

lock: ## Resolve pyproject anew into requirements.lock
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q uv==$(UV_VERSION); }
	$(BIN)/uv pip compile --quiet --upgrade --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate pyproject.toml --output-file requirements.lock

clean: ## Remove everything that was made here
	rm -rf $(VENV) .venv-lowest .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* dist
