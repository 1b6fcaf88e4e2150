# Usher's commands. Each target says in one line what it does; `make` alone prints them.

# Where rustup puts cargo, for shells that were not told.
export PATH := $(PATH):$(HOME)/.cargo/bin

CARGO_TARGET_DIR ?= target

.DEFAULT_GOAL := help
.PHONY: help prepare run test model chaos bench lint clean-data

help: ## Prints the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

prepare: ## Installs what this machine lacks: a C compiler, Redis, MariaDB. Starts nothing.
	@scripts/prepare.sh

run: prepare ## Builds Usher and starts it with private servers and demo data under .usher/. Ctrl-C stops everything.
	cargo build --release --locked
	@exec $(CARGO_TARGET_DIR)/release/usher dev

test: prepare ## Runs every test, on servers that the tests start and stop themselves.
	cargo test --locked --workspace --no-fail-fast

# Options for `make bench`, such as "--connections 256 --seconds 5 --only join,poll".
BENCH ?=

bench: prepare ## Measures the hot paths beside a no-op request and prints a table (loadtest/README.md). BENCH="…" passes options.
	cargo build --release --locked --workspace
	@exec $(CARGO_TARGET_DIR)/release/rush bench $(BENCH)

lint: prepare ## Checks format, clippy, licences and sources of dependencies, and shell scripts if shellcheck is there.
	cargo fmt --all --check
	cargo clippy --locked --workspace -- -D warnings
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/cargo-deny.sh check --hide-inclusion-graph bans licenses sources
	@if command -v shellcheck >/dev/null; then shellcheck -s sh scripts/*.sh src/dev/*.sh && shellcheck .ci/run; fi

model: prepare ## Walks the line at random ten thousand times (about ten minutes).
	USHER_MODEL_RUNS=10000 cargo test --locked --test it queue_model -- --nocapture

# How many rounds `make chaos` plays, from which seed on (by chance if empty), and how many at once.
CHAOS_ROUNDS ?= 200
CHAOS_SEED ?=
CHAOS_LANES ?= 1

chaos: prepare ## Plays rounds of faults on real servers and processes (about six seconds each). CHAOS_ROUNDS, CHAOS_SEED, CHAOS_LANES.
	CHAOS_ROUNDS=$(CHAOS_ROUNDS) CHAOS_SEED=$(CHAOS_SEED) CHAOS_LANES=$(CHAOS_LANES) cargo test --locked --test it faults::chaos -- --nocapture

clean-data: ## Removes the data that `make run` keeps between runs.
	rm -rf .usher
