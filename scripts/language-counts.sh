#!/bin/sh
# Prints the counts about language that tests/tidy/language.rs limits: names of types, banned words,
# long lines, README and subjects of commits.
set -eu
cd "$(dirname "$0")/.."
cargo test --locked --quiet --test tidy -- --ignored --exact language::print_counts --nocapture |
    grep -v '^running\|^test result\|^\.*$'
