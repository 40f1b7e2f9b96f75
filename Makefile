# Every target sets up what it needs: a virtual environment with the declared dependencies, made again when
# pyproject.toml or uv.lock change. uv does it when it is on PATH (`make UV= …` to do without), else venv and pip.

VENV ?= .venv
UV ?= $(shell command -v uv 2>/dev/null)
# Which Python; empty: the newest that is supported. Only looked at when the environment is made.
PYTHON ?=
# What goes into the environment besides the product.
GROUP := dev
EXTRA := embedded

# Tests are shared out among processes, each with a ClickHouse server of its own. Three, on two cores too: they also wait.
SHARED := -n 3 --dist worksteal

BIN := $(VENV)/bin
READY := $(VENV)/.ready
comma := ,
# Tests start `shipper` as a process and find it here.
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test model torture bench measure check lint types cover format lock clean

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
	  printf '%-14s %s\n' "$$target" "$$text"; done

demo: $(READY) ## Ship 30 days of a simulated organization into an embedded ClickHouse, and show them
	@$(BIN)/shipper demo

test: $(READY) ## Run the tests
	$(BIN)/pytest $(SHARED)

model: $(READY) ## Search longer for a way to lose an event in the model, each time another way
	HYPOTHESIS_PROFILE=long $(BIN)/pytest tests/model -k nothing_is_lost

torture: $(READY) ## Ship under faults, N seeds (make torture N=200), and count what was lost or doubled
	$(BIN)/python -m tests.faults.torture --runs $(or $(N),20) --seed $(or $(SEED),1)

bench: ## Measure it beside its peers (for a try: make bench RUNS=1 SCALE=0.1 ONLY=replay; PROFILE=1: a flame graph)
	@UV_COMPILE_BYTECODE=1 $(MAKE) --no-print-directory VENV=.cache/bench-venv GROUP=bench EXTRA= measure

# In an environment without the embedded engine, and with the peers, which nothing else here needs.
measure: $(READY)
	@$(BIN)/python -m tests.bench $(if $(RUNS),--runs $(RUNS)) $(if $(SCALE),--scale $(SCALE)) \
	  $(foreach part,$(subst $(comma), ,$(ONLY)),--only $(part)) $(if $(PROFILE),--profile)

check: lint types cover ## Format, lint, types, and the tests with the floor under their coverage

lint: $(READY) ## Check format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY) ## Check types
	$(BIN)/mypy

cover: $(READY) ## Run the tests and measure the branches they take
	$(BIN)/pytest $(SHARED) --cov --cov-report=term

format: $(READY) ## Format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Lock the dependencies again (needs uv)
	uv lock

clean: ## Remove what was made here, the shipped data aside
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.* build dist
	find shipper tests -name __pycache__ -type d -prune -exec rm -rf {} +

ifneq ($(strip $(UV)),)

# UV_PROJECT_ENVIRONMENT is where `uv sync` works.
$(READY): pyproject.toml uv.lock
	@echo "Setting up $(VENV) with uv; the first time it takes a minute"
	@$(BIN)/python -c '' 2>/dev/null || \
	  '$(UV)' venv --quiet --clear --no-python-downloads --python '$(or $(PYTHON),>=3.11$(comma)<3.15)' $(VENV)
	@UV_PROJECT_ENVIRONMENT=$(VENV) '$(UV)' sync --quiet --frozen --no-default-groups --group $(GROUP) \
	  $(if $(EXTRA),--extra $(EXTRA))
	@touch $@

else

# A command named like a Python may be a stub, so each candidate is run. A Debian without python3-venv has no
# ensurepip; the pip that is there then installs into the environment from outside.
$(READY): pyproject.toml uv.lock .ci/pins
	@echo "Setting up $(VENV) with pip; the first time it takes a minute or two"
	@$(BIN)/python -c '' 2>/dev/null && exit; \
	for python in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3 python); do \
	  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null || continue; \
	  if "$$python" -c 'import ensurepip' 2>/dev/null; then "$$python" -m venv --clear $(VENV); exit; fi; \
	  "$$python" -m venv --clear --without-pip $(VENV) && \
	  "$$python" -m pip --python $(BIN)/python install --quiet 'pip>=25.1'; exit; \
	done; \
	echo "error: found no Python 3.11 to 3.14$(if $(PYTHON), called $(PYTHON))" >&2; \
	echo "hint:  name one: make PYTHON=/path/to/python3.13 …" >&2; exit 1
	@$(BIN)/python -m pip install --quiet 'pip>=25.1'
	@$(BIN)/python .ci/pins uv.lock > $(VENV)/constraints.txt
	@$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt \
	  --editable '.$(if $(EXTRA),[$(EXTRA)])' --group $(GROUP)
	@touch $@

endif
