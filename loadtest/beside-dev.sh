#!/bin/sh
# Runs a command against a private `usher dev` on free ports with temporary data, which stops at the
# end. The command finds USHER_URL, USHER_ADMIN and USHER_ADMIN_KEY in its environment.
# Usage: beside-dev.sh <usher> <command…>
set -eu

usher=$1
shift
dir=$(mktemp -d)
: >"$dir/stdout"
USHER_DATA_DIR="$dir/data" USHER_LISTEN=127.0.0.1:0 USHER_ADMIN_LISTEN=127.0.0.1:0 \
    "$usher" dev >"$dir/stdout" 2>"$dir/log" &
pid=$!
stop() {
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM

# Waits up to three minutes for the last line of the banner.
tries=1800
until grep -q 'Admin key' "$dir/stdout"; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ] || ! kill -0 "$pid" 2>/dev/null; then
        echo "usher dev did not start:" >&2
        tail -n 20 "$dir/log" >&2
        exit 1
    fi
    sleep 0.1
done
USHER_URL=$(sed -n 's|^ *API *\(http://[^/]*\)/v1.*|\1|p' "$dir/stdout")
USHER_ADMIN=$(sed -n 's|^ *Metrics *\(http://[^/]*\)/metrics.*|\1|p' "$dir/stdout")
USHER_ADMIN_KEY=$(sed -n 's|^ *Admin key *||p' "$dir/stdout")
export USHER_URL USHER_ADMIN USHER_ADMIN_KEY
"$@"
