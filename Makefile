# Every target is described by the comment behind its name; `make help` prints them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
WORK := $(CURDIR)/.work
VENV := $(WORK)/venv
BIN := $(VENV)/bin
PYTHON ?= python3
SYSTEM ?= dhanman/prod
COLLECTION := $(WORK)/collections/ansible_collections/berth/platform
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(BIN):$(PATH)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(VENV)/.ready $(COLLECTION) ## Virtual environment with Ansible and the test tools, in .work/

$(VENV)/.ready: requirements.txt requirements-dev.txt
	@echo "==> virtual environment in .work/venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt -r requirements-dev.txt
	@touch $@

# A collection is only found under its own name, whatever the clone is called.
$(COLLECTION):
	@mkdir -p $(@D) && ln -sfn $(CURDIR) $@

.PHONY: demo
demo: ## A whole system from nothing (SYSTEM=dhanman/prod): hosts, converge, report
	@$(PYTHON) lab/lab demo $(SYSTEM)

.PHONY: status
status: setup ## The report of a system that the demo brought up (SYSTEM=…)
	@$(PYTHON) lab/lab status $(SYSTEM)

.PHONY: test
test: lint unit render system ## Everything: lint, unit, render and system tests, from nothing

.PHONY: lint
lint: setup ## Style, types, documentation, sanity, the collection's build
	@tests/lint

.PHONY: unit
unit: setup ## The core and the plugins, without hosts
	@$(BIN)/pytest tests/unit

.PHONY: render
render: setup ## Every template with edge values, without hosts
	@$(BIN)/pytest tests/render

.PHONY: system
system: setup ## Roles (molecule) and whole systems on hosts that boot
	@$(PYTHON) lab/lab packages
	@failed=; tests/roles || failed=1; $(BIN)/pytest tests/system --durations=0 || failed=1; test -z "$$failed"

.PHONY: docs
docs: setup ## Write the roles' pages from their argument specifications
	@$(BIN)/python docs/generate.py

.PHONY: bench
bench: setup ## Measure converges against ordinary loops; writes docs/benchmarks.md
	@$(PYTHON) lab/lab packages
	@$(BIN)/python bench/run.py

.PHONY: destroy
destroy: ## Remove every test host, network and volume that was made here
	@$(PYTHON) lab/lab down --all
