# Every target is described by the comment behind its name; `make help` prints them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
WORK := $(CURDIR)/.work
VENV := $(WORK)/venv
BIN := $(VENV)/bin
PYTHON ?= python3
SYSTEM ?= dhanman/prod
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(BIN):$(PATH)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(VENV)/.ready $(WORK)/collections/ansible_collections/berth/platform ## Virtual environment with Ansible and the test tools

$(VENV)/.ready: requirements.txt requirements-dev.txt
	@echo "==> virtual environment in .work/venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt -r requirements-dev.txt
	@touch $@

# A collection is only found under its own name, whatever the clone is called.
$(WORK)/collections/ansible_collections/berth/platform:
	@mkdir -p $(@D) && ln -sfn $(CURDIR) $@
