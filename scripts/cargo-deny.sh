#!/bin/sh
# Runs cargo-deny with the arguments given, for instance `check bans licenses sources`. Uses the one on the PATH when it
# is of the version that deny.toml is written for, else builds that version once, below target/.
set -eu

version=0.20.2
cd "$(dirname "$0")/.."
tools=target/tools

fits() {
    [ "$("$1" --version 2>/dev/null)" = "cargo-deny $version" ]
}

deny=cargo-deny
if ! fits "$deny"; then
    deny=$tools/bin/cargo-deny
    if ! fits "$deny"; then
        echo "Building cargo-deny $version, once (a minute or two)" >&2
        # A debug build takes a quarter of the time and needs two seconds for a check.
        cargo install cargo-deny --version "$version" --locked --quiet --debug --no-default-features \
            --root "$tools" --target-dir "$tools/build"
        rm -rf "$tools/build"
    fi
fi
exec "$deny" "$@"
