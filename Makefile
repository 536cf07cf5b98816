# `make demo` shows the operator in action, `make test` runs every test. Each sets up what it needs first. KUBERNETES=1.31
# beside any of them has the control plane in that minor version.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# What an image has, and no more: some libraries import whatever else they find.
RUNTIME := $(VENV)/runtime

.DEFAULT_GOAL := help
.PHONY: help demo test coverage bench soak e2e acceptance simulator controlplane generate dist sbom recording lock lint clean

help:  ## Show this help.
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## Run the operator on a local control plane and a simulated cloud (ONCE=1: show and stop).
	@exec $(BIN)/python -m tests.demo $(if $(ONCE),--once)

test: $(VENV)/.installed lint  ## Run every check and every test (KUBERNETES=1.31: on that version).
	@$(BIN)/python -m tests.support.controlplane build
	@$(BIN)/python -m tests.support.gotools actionlint helm prometheus promtool > /dev/null
	@exec $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

coverage: $(VENV)/.installed  ## Run every test and show what of the operator they reach; takes twice as long.
	@exec $(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

lint: $(VENV)/.installed  ## Check style, types, layers, Dockerfile and workflows.
	@echo "==> ruff, mypy, import-linter, hadolint, zizmor"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/zizmor --offline --quiet .github

bench: $(RUNTIME)/.installed  ## Measure speed and cost beside a bare client (N=1000,3000 AS_LATENCY_MS=50 PLOT=file.svg).
	@rm -rf $(RUNTIME)/dist
	@$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w $(RUNTIME)/dist .
	@$(RUNTIME)/bin/python -m pip install -q --disable-pip-version-check --no-deps --force-reinstall $(RUNTIME)/dist/*.whl
	@exec $(BIN)/python -m tests.bench --operator=$(RUNTIME)/bin/lifecyclehook-operator \
	    $(if $(N),--resources="$(N)") $(if $(AS_LATENCY_MS),--as-latency-ms="$(AS_LATENCY_MS)") \
	    $(if $(PLOT),--plot="$(PLOT)") $(ARGS)

soak: $(VENV)/.installed  ## Let everything fail for a while, then check what is left (MINUTES=5, SEED=).
	@exec $(BIN)/python -m tests.soak $(if $(MINUTES),--minutes="$(MINUTES)") $(if $(SEED),--seed="$(SEED)")

e2e: $(VENV)/.installed  ## Try everything on KUBECONFIG's cluster (IMAGE=, OLD_IMAGE=, CONTEXT= to confirm).
	@exec $(BIN)/python -m tests.e2e $(if $(IMAGE),--image="$(IMAGE)") \
	    $(if $(OLD_IMAGE),--old-image="$(OLD_IMAGE)") $(if $(CONTEXT),--context="$(CONTEXT)")

acceptance: $(VENV)/.installed  ## Try in a real project what is assumed of the cloud (OS_* or OS_CLOUD, GROUP_ID=, TOPIC_URN=).
	@exec $(BIN)/python -m tests.acceptance --group-id="$(GROUP_ID)" --topic-urn="$(TOPIC_URN)" \
	    $(if $(BUSY_GROUP_ID),--busy-group-id="$(BUSY_GROUP_ID)") \
	    $(if $(FOREIGN_HOOKS),--foreign-hooks="$(FOREIGN_HOOKS)") $(ARGS)

simulator: $(VENV)/.installed  ## Run the simulated cloud (IAM and AS) on its own.
	@exec $(BIN)/python -m tests.support.simulator $(ARGS)

controlplane: $(VENV)/.installed  ## Build etcd, kube-apiserver and kubectl into the cache (KUBERNETES=1.31: of that version).
	@exec $(BIN)/python -m tests.support.controlplane build

generate: $(VENV)/.installed  ## Write crds/ and docs/reference.md from the code, and install.yaml and chart of deploy/ from the rest of it.
	@for plural in lifecyclehooks lifecyclecallbacks; do \
	    $(BIN)/lifecyclehook-operator crd $$plural > crds/$$plural.yaml || exit 1; done
	@$(BIN)/python -m tests.docs
	@$(BIN)/python -m tests.deploy

DIST ?= dist
dist: $(VENV)/.installed  ## Write install.yaml and the chart of a release to dist/ (IMAGE=REGISTRY/NAME[:TAG][@DIGEST]).
	@exec $(BIN)/python -m tests.deploy --folder="$(DIST)" --image="$(or $(IMAGE),$(error IMAGE= is missing))"

sbom: $(VENV)/.installed  ## Write what requirements.txt locks to dist/sbom.cdx.json (CycloneDX).
	@mkdir -p "$(DIST)"
	@exec $(BIN)/python -W ignore::UserWarning -m cyclonedx_py requirements requirements.txt \
	    --pyproject pyproject.toml --output-reproducible -o "$(DIST)/sbom.cdx.json"

recording: $(VENV)/.installed  ## Record docs/demo.svg anew (needs the network).
	@$(BIN)/python -m pip install -q --disable-pip-version-check termtosvg-ng
	@$(BIN)/python -m tests.docs.recording docs/demo.svg

UV_COMPILE = $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
             --no-header --no-annotate --no-emit-index-url --no-strip-extras --upgrade pyproject.toml
lock:  ## Renew the hashed requirements files (needs the network).
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q uv
	@$(UV_COMPILE) -o requirements.txt
	@$(UV_COMPILE) --group dev -c requirements.txt -o requirements-dev.txt

# The lock holds all there is to install, by hash: pip has nothing to resolve and refuses anything else, whichever index
# or mirror this machine is set to use.
$(VENV)/.installed: pyproject.toml requirements-dev.txt
	@echo "==> installing the locked requirements into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps \
	    -r requirements-dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@$(BIN)/python -m pip check -q --disable-pip-version-check
	@touch $@

$(RUNTIME)/.installed: $(VENV)/.installed requirements.txt
	@echo "==> installing what an image has into $(RUNTIME)"
	@$(PYTHON) -m venv $(RUNTIME)
	@$(RUNTIME)/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@touch $@

clean:  ## Remove what was installed here (the control plane's cache stays).
	rm -rf $(VENV) dist build .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
