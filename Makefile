# Two commands matter: `make demo` and `make test`. Both set everything up from nothing but Python 3.11+.
ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
VENV := $(ROOT)/.venv
BIN  := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.installed
# Tests run in two workers; a file stays on one worker, so that it can share one stack.
PYTEST_ARGS ?= -n 2 --dist loadfile
export PATH := $(BIN):$(PATH)
export DENO_NO_UPDATE_CHECK := 1
export DO_NOT_TRACK := 1
# uv trusts its own list alone; behind a proxy with a certificate of its own, only the system's list works.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem),)
export UV_SYSTEM_CERTS ?= 1
endif
export DENO_TLS_CA_STORE ?= system,mozilla

.PHONY: setup demo test unit sql stack attack docker faults e2e cost lint lint-python lint-rooms lint-ts lint-spelling lint-shell lint-workflows
.PHONY: docs soak bench up down lock web clean

setup: $(STAMP)

# Bytecode is kept in the environment, not in the tree, also where PYTHONDONTWRITEBYTECODE is set (many images):
# the tests start thousands of Python processes, and one that has to compile what it imports costs three times as
# much. Said in the environment itself, so that a process with cleaned variables knows, too.
BYTECODE := import sys; sys.dont_write_bytecode, sys.pycache_prefix = False, sys.prefix + "/pycache"

# uv comes from the hash-locked list too: pip checks its hash, then uv installs the rest.
$(STAMP): $(ROOT)/requirements.lock $(ROOT)/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Metrica Fleet needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "Could not make $(VENV). On Debian or Ubuntu: apt-get install python3-venv"; exit 2; }
	@echo '$(BYTECODE)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bytecode.pth"
	@cd $(ROOT) && awk '/^uv==/ {on=1; print; next} on && /^[^ ]/ {exit} on' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@cd $(ROOT) && $(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@cd $(ROOT) && $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@cd $(ROOT) && $(BIN)/python -m compileall -q fleet_agent scripts tests
	@touch $@

demo: setup
	@cd $(ROOT) && $(BIN)/fleetctl demo $(if $(ONCE),--once) $(DEMO_ARGS)

test: setup lint
	@cd $(ROOT) && $(BIN)/python -m pytest --durations=15 $(PYTEST_ARGS)

# One part: `make unit`, or less of it: `make unit PYTEST_ARGS="-p no:xdist -k outbox"`.
unit sql stack attack docker faults e2e: setup
	@cd $(ROOT) && $(BIN)/python -m pytest tests/$@ $(PYTEST_ARGS)

# What the tests cost, with all that they start: `make cost PART=unit BASE=main` runs both in one sitting.
cost: setup
	@cd $(ROOT) && $(BIN)/python -m tests.cost $(if $(BASE),--base $(BASE)) $(COST_ARGS) $(MAKE) $(or $(PART),test)

# One target a tool, so that .pre-commit-config.yaml and the workflow can call one of them.
lint: lint-python lint-rooms lint-ts lint-spelling lint-shell lint-workflows

lint-python: setup
	@cd $(ROOT) && $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Which room of the agent and of fleetctl may import which: [tool.importlinter] in pyproject.toml.
lint-rooms: setup
	@cd $(ROOT) && $(BIN)/lint-imports --no-cache --no-logo

lint-ts: setup
	@cd $(ROOT) && for part in web web/tools/boundaries supabase/local edge_functions; do \
	  (cd $$part && $(BIN)/deno task --quiet check) || exit 1; done

lint-spelling: setup
	@cd $(ROOT) && git ls-files -z | xargs -0 $(BIN)/codespell

lint-shell: setup
	@cd $(ROOT) && git grep -lzE '^#!.*[ /](ba|da)?sh$$' | xargs -0 awk 'FNR == 1 && /^#!/ { print FILENAME } { nextfile }' | \
	  xargs $(BIN)/shellcheck

lint-workflows: setup
	@cd $(ROOT)/.github && $(BIN)/deno task --quiet actionlint
	@cd $(ROOT) && $(BIN)/zizmor --offline --quiet --no-progress .github

# The pages that are made from code; tests compare them.
docs: setup
	@cd $(ROOT) && $(BIN)/python -m tests.support.settings_page

# Hours: the whole crash matrix, 500 rounds of SIGKILL a runtime. FLEET_SEED=YYYYMMDD repeats a day's.
soak: setup
	@cd $(ROOT) && FLEET_SOAK=1 $(BIN)/python -m pytest -p no:xdist $(if $(SOAK_ARGS),$(SOAK_ARGS),tests/faults)

bench: setup
	@cd $(ROOT) && $(BIN)/python -m tests.bench $(BENCH_ARGS)

up: setup
	@cd $(ROOT) && $(BIN)/fleetctl up $(UP_ARGS)

down: setup
	@cd $(ROOT) && $(BIN)/fleetctl down

# The lock names no host: uv.lock would.
lock: setup
	@cd $(ROOT) && $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --extra operator --group dev pyproject.toml -o requirements.lock
	@cd $(ROOT) && $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header pyproject.toml -o requirements-agent.lock

clean:
	rm -rf $(VENV) $(ROOT)/.fleet $(ROOT)/web/dist $(ROOT)/web/node_modules $(ROOT)/supabase/local/node_modules
