#!/bin/sh
# Lints everything that deploys Usher: Dockerfile, docker-compose.yml, deploy/ and the configuration
# of Prometheus and Grafana. Each file is checked by a tool that knows its format. The tools come
# from PyPI into a private venv, at the versions in deploy/requirements.txt. If they cannot be
# downloaded, or the program a file is for is not installed, that part is skipped and a line that
# begins with SKIPPED says so. No container is started.
set -eu
cd "$(dirname "$0")/.."
venv=${CARGO_TARGET_DIR:-target}/lint-deploy

skipped() {
    echo "SKIPPED: lint-deploy: $*"
}

install() {
    cmp -s deploy/requirements.txt "$venv/installed" && return 0
    rm -rf "$venv"
    python3 -m venv "$venv" && timeout 120 "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
        --requirement deploy/requirements.txt && cp deploy/requirements.txt "$venv/installed"
}

unit() {
    # systemd-analyze wants the program to exist, so the copy names one that does.
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    sed -e 's#/usr/local/bin/usher#/bin/true#' deploy/usher.service >"$work/usher.service"
    messages=$(systemd-analyze verify "$work/usher.service" 2>&1) || true
    # Messages about other units concern this machine, not the file.
    if echo "$messages" | grep -F usher.service; then return 1; fi
    # The exposure level goes from 0 (locked down) to 100; a unit without any hardening has 96.
    systemd-analyze security --offline=true --threshold=20 --no-pager "$work/usher.service" >"$work/report" 2>&1 ||
        { tail -n 20 "$work/report"; return 1; }
}

if ! mkdir -p "$(dirname "$venv")" || ! install >"$venv.log" 2>&1; then
    tail -n 3 "$venv.log" || true
    skipped "the linters cannot be installed here (they need python3 with venv, and PyPI)"
else
    bin=$venv/bin
    "$bin/yamllint" --strict --config-file deploy/yamllint.yml docker-compose.yml deploy grafana/provisioning grafana/prometheus
    "$bin/hadolint" Dockerfile deploy/compose/crowd.Dockerfile
    # The tool contains the Compose specification.
    "$bin/check-jsonschema" --quiet --builtin-schema vendor.compose-spec docker-compose.yml
    "$bin/check-jsonschema" --quiet --check-metaschema deploy/helm/usher/values.schema.json
    # Helm reports each symbolic link that it follows.
    "$bin/python" scripts/lint-chart.py 2>"$venv.log" || { grep -v 'found symbolic link' "$venv.log"; exit 1; }
    work=$(mktemp -d)
    # The image includes the file inside `http`.
    echo "events {} http { include $PWD/deploy/compose/nginx.conf; }" >"$work/nginx.conf"
    parsed=$("$bin/crossplane" parse --strict "$work/nginx.conf") || true
    rm -rf "$work"
    case $parsed in
        *'"status":"ok"'*) ;;
        *) echo "deploy/compose/nginx.conf: $parsed" | cut -c 1-600; exit 1 ;;
    esac
    echo "lint-deploy: docker-compose.yml, Dockerfile, nginx and Prometheus configuration are valid"
fi

if ! command -v systemd-analyze >/dev/null 2>&1; then
    skipped "deploy/usher.service: systemd-analyze is not installed"
elif unit; then
    echo "lint-deploy: deploy/usher.service is valid"
else
    exit 1
fi
