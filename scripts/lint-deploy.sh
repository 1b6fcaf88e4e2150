#!/bin/sh
# Lints what deploys Usher, each file by a tool that knows its format: Dockerfile, docker-compose.yml, deploy/ and the configuration of Prometheus and Grafana.
# The tools come from PyPI into a venv of their own, at the versions of deploy/requirements.txt. Where they can't be had, or a file is for a
# program that is not here, that part is skipped, and a line that begins with SKIPPED says so. None of it starts a container.
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
    # Without a name of the machine's own: the program need not be installed here.
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    sed -e 's#/usr/local/bin/usher#/bin/true#' deploy/usher.service >"$work/usher.service"
    told=$(systemd-analyze verify "$work/usher.service" 2>&1) || true
    # What it says of other units is the machine's.
    if echo "$told" | grep -F usher.service; then return 1; fi
    # 0 is as closed as can be, 100 wide open; a plain service has 96.
    systemd-analyze security --offline=true --threshold=20 --no-pager "$work/usher.service" >"$work/told" 2>&1 ||
        { tail -n 20 "$work/told"; return 1; }
}

if ! mkdir -p "$(dirname "$venv")" || ! install >"$venv.log" 2>&1; then
    tail -n 3 "$venv.log" || true
    skipped "the linters can't be had here (python3 with venv, and PyPI)"
else
    bin=$venv/bin
    "$bin/yamllint" --strict --config-file deploy/yamllint.yml docker-compose.yml deploy grafana/provisioning grafana/prometheus
    "$bin/hadolint" Dockerfile
    # The Compose specification comes with the tool.
    "$bin/check-jsonschema" --quiet --builtin-schema vendor.compose-spec docker-compose.yml
    # So do the schemas of Kubernetes; --strict refuses fields that it does not know.
    for file in deploy/kubernetes/*.yaml; do
        case $file in */kustomization.yaml) continue ;; esac
        "$bin/kubernetes-validate" --quiet --strict "$file"
    done
    work=$(mktemp -d)
    # Where the image includes it.
    echo "events {} http { include $PWD/deploy/nginx/compose.conf; }" >"$work/nginx.conf"
    told=$("$bin/crossplane" parse --strict "$work/nginx.conf") || true
    rm -rf "$work"
    case $told in
        *'"status":"ok"'*) ;;
        *) echo "deploy/nginx/compose.conf: $told" | cut -c 1-600; exit 1 ;;
    esac
    echo "lint-deploy: docker-compose.yml, Dockerfile, Kubernetes manifests, nginx and Prometheus configuration are sound"
fi

if ! command -v systemd-analyze >/dev/null 2>&1; then
    skipped "deploy/usher.service: no systemd-analyze here"
elif unit; then
    echo "lint-deploy: deploy/usher.service is sound"
else
    exit 1
fi
