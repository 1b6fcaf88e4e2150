#!/bin/sh
# Validates and lints both OpenAPI documents, generates a TypeScript and a Python client from them,
# compiles both, buys a seat with each, and sends the examples of all requests.
# Usage: beside-dev.sh <usher> run.sh <venv>
set -eu

mkdir -p "$1"
venv=$(realpath "$1")
cd "$(dirname "$0")"
rm -rf generated
mkdir generated
curl -fsS "$USHER_URL/openapi.json" >generated/public.json
curl -fsS "$USHER_ADMIN/openapi.json" >generated/admin.json

npm ci --no-audit --no-fund --loglevel=error
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
export PATH="$venv/bin:$PATH" REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true

for document in public admin; do
    openapi-spec-validator "generated/$document.json"
    npx redocly lint --config redocly.yaml "generated/$document.json"
    npx openapi-typescript "generated/$document.json" --output "generated/$document.ts"
    openapi-python-client generate --path "generated/$document.json" --meta none \
        --output-path "generated/${document}_client"
done
npx tsc --project .
python -m compileall -q generated
mypy --strict --follow-imports=silent buy.py examples.py
node generated/js/buy.js
PYTHONPATH=. python buy.py
python examples.py
