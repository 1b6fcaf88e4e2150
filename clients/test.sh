#!/bin/sh
# Tests both clients. Usage: clients/test.sh USHER_BINARY VENV
#
# The purchases from a live service run if USHER_URL is set, and are skipped otherwise.
set -eu

usher=$(realpath "$1")
mkdir -p "$2"
venv=$(realpath "$2")
cd "$(dirname "$0")"

# The types and the vectors are generated. They must match their sources.
"$usher" openapi | ./generate_types.py --check
../tests/vectors/make_line.py --check

(
    cd typescript
    npm ci --no-audit --no-fund --loglevel=error
    npm test
)

# The venv keeps the tools between runs. The client itself is installed from a copy, because its
# build writes into its folder.
[ -x "$venv/bin/mypy" ] || python3 -m venv "$venv"
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -R python/pyproject.toml python/README.md python/src "$copy"
"$venv/bin/pip" install --quiet --disable-pip-version-check "$copy[test]"
cd python
"$venv/bin/mypy" --cache-dir "$venv/mypy"
PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -W error -m unittest discover -s tests

# The adapters for payment providers, against fakes.
PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -W error -m unittest discover -s ../../examples/payments
