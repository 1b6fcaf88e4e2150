#!/bin/sh
# Runs `cargo test` with the arguments given. The last line it prints is "N passed, N failed, N
# skipped". The output is kept in target/test-output.txt.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
output=$target/test-output.txt

# Build first, without a pipe, so that cargo shows its progress on a terminal.
options=
for argument in "$@"; do
    [ "$argument" != -- ] || break
    # Word splitting is meant below: cargo's own options contain no spaces.
    options="$options $argument"
done
# shellcheck disable=SC2086
cargo test --no-run $options

# A POSIX shell has no `pipefail`, so the exit code takes a file past `tee`.
{
    status=0
    cargo test "$@" || status=$?
    echo "$status" >"$target/test-status"
} 2>&1 | tee "$output"
status=$(cat "$target/test-status")

counts=$(scripts/count-tests.sh "$output")
# Word splitting is meant: three numbers.
# shellcheck disable=SC2086
set -- $counts
if [ "$status" -eq 0 ] && { [ "$2" -gt 0 ] || [ "$1" -eq 0 ]; }; then
    echo "No test ran, or the counts contradict the exit code."
    status=1
fi
echo "$1 passed, $2 failed, $3 skipped"
exit "$status"
