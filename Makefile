# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Every target sets up the virtual environment first; when nothing has changed
# that costs a few milliseconds.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Everything by default; `make setup EXTRAS=enclave,host,openai` is enough for `make demo`.
EXTRAS ?= enclave,host,openai,train,dev
comma := ,
STAMP := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt manifests/llama-build.toml 2>/dev/null | cksum | cut -d' ' -f1)-$(subst $(comma),-,$(EXTRAS))
.PHONY: help
help:  ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP)  ## Build .venv with everything (compiles llama.cpp once per machine).

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Adyton needs Python 3.11, 3.12 or 3.13; this is " + sys.version.split()[0] + ". Try: make setup PYTHON=python3.11")'
	@echo "==> virtual environment in $(VENV) ($(EXTRAS))"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python manifests/build_llama.py > $(VENV)/llama-wheel
	@echo "==> installing dependencies"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		"$$(cat $(VENV)/llama-wheel)" --editable ".[$(EXTRAS)]"
	@rm -f $(VENV)/.ready-*; touch $@
	@echo "==> ready"

.PHONY: demo
demo: setup  ## Start the appliance, ask it a sealed question, verify the answer, shut down.
	@$(BIN)/python docs/examples/demo.py

.PHONY: up
up: setup  ## Run the simulated appliance in the foreground.
	@$(BIN)/adyton-host up --simulate

.PHONY: check
check: setup  ## Everything that needs no run: format, lint, types, trust boundaries.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: fix
fix: setup  ## Let ruff repair what it can.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: test
test: setup  ## The suite, the slow part included.
	@$(BIN)/python -m pytest -m "not sgx and not exhaustive"

.PHONY: test-fast
test-fast: setup  ## The fast part of the suite.
	@$(BIN)/python -m pytest

.PHONY: test-exhaustive
test-exhaustive: setup  ## What only an update of llama.cpp can break: every way to compute the same logits (half an hour).
	@$(BIN)/python -m pytest -m exhaustive

.PHONY: test-explore
test-explore: setup  ## Property tests with new and more examples than the suite's fixed ones (an hour).
	@$(BIN)/python -m pytest tests/unit -m "not sgx and not exhaustive" --hypothesis-profile=explore

.PHONY: test-gramine
test-gramine: setup  ## The appliance under gramine-direct, when it is on the PATH (docs/gramine.md); skips visibly otherwise.
	@$(BIN)/python -m pytest tests/gramine -m gramine -rs

.PHONY: prove
prove: setup  ## Remove each protection in a copy of the tree, and show that its test notices (minutes).
	@$(BIN)/python tests/promises/prove.py

.PHONY: mutants
mutants: setup  ## Put small faults into the verifier, one after the other; each must be noticed or have its reason (hours; goes on).
	@$(BIN)/python tests/mutation/run_mutants.py

.PHONY: fuzz
fuzz: setup  ## Fuzz every parser of the verifier with atheris, half a minute each; says so where atheris cannot be installed.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[fuzz]" \
		|| echo "atheris cannot be installed for this Python"
	@$(BIN)/python tests/fuzz/fuzz.py

.PHONY: foreign
foreign:  ## Install the npm packages of the foreign OHTTP client that the suite talks to.
	@cd tests/foreign/npm && npm ci --silent --no-audit --no-fund

.PHONY: bench
bench: setup  ## Measure sealed against unsealed; writes JSON and a plot to bench/results/.
	@$(BIN)/python bench/sealing.py

.PHONY: bench-engine
bench-engine: setup  ## Measure the engine against llama-server (built from source, once); about 25 minutes.
	@$(BIN)/python bench/engine.py

.PHONY: bench-loading
bench-loading: setup  ## Measure loading (clear, split, sealed) against llama.cpp's own; a few minutes.
	@$(BIN)/python bench/loading.py

.PHONY: bench-appraisal
bench-appraisal: setup  ## Measure an appraisal against dcap-qvl's own verification, and the start of `adyton quote verify`; a minute.
	@$(BIN)/python bench/appraisal.py

.PHONY: bench-fairness
bench-fairness: setup  ## Measure what streams notice of a wide search, and what candidates share; ten minutes.
	@$(BIN)/python bench/fairness.py
	@$(BIN)/python bench/candidates.py

.PHONY: bench-gramine
bench-gramine: setup  ## Measure the enclave under gramine-direct against the native process; five minutes.
	@$(BIN)/python bench/gramine.py

.PHONY: bench-scaling
bench-scaling: setup  ## Measure searches: accuracy against tokens, FLOPs and time (hours; interrupt it and go on).
	@$(BIN)/python bench/scaling.py

.PHONY: soak
soak: setup  ## An hour at saturation with random cancellations; says whether memory stays flat.
	@$(BIN)/python bench/soak.py

.PHONY: measured-files
measured-files:  ## Rewrite the list of measured modules after adding or removing one.
	@{ echo "# Modules that are measured: the enclave without its simulator and its probe, and the protocol."; \
	   { cd enclave && find adyton_enclave -name '*.py' ! -path adyton_enclave/simulation.py ! -path adyton_enclave/probe.py; \
	     cd ../protocol && find adyton_protocol -name '*.py'; } | LC_ALL=C sort; } > manifests/measured-files.txt

.PHONY: openapi
openapi: setup  ## Rewrite docs/openapi.json and the tables of docs/api.md after changing the API.
	@$(BIN)/python docs/generators/openapi_document.py
	@$(BIN)/python docs/generators/api_page.py

.PHONY: reports-page
reports-page: setup  ## Rewrite the tables of docs/reports.md after changing a schema in docs/schemas.
	@$(BIN)/python docs/generators/reports_page.py

.PHONY: pins
pins: setup  ## Resolve and hash the dependencies anew after changing pyproject.toml.
	@$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --no-annotate --no-header \
		$(foreach extra,enclave host openai train math dev,--extra $(extra)) pyproject.toml -o constraints.txt
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --constraint constraints.txt \
		--generate-hashes manifests/requirements-enclave.in -o manifests/requirements-enclave.txt

.PHONY: clean
clean:  ## Remove what the targets made, the virtual environment included.
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/results
