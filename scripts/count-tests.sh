#!/bin/sh
# Reads the output of `cargo test` from a file and prints "PASSED FAILED SKIPPED", three numbers.
#
# A test that needs something this machine lacks prints `SKIPPED <test>: <reason>` and returns, so
# the Rust test harness counts it as passed. Here it counts as skipped, and so does a test that left
# out a part. Tests that are marked `#[ignore]` count as skipped, too. The reasons go to standard
# error.
set -eu

awk '
    /^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i == "passed;") passed += $(i - 1)
            if ($i == "failed;") failed += $(i - 1)
            if ($i == "ignored;") ignored += $(i - 1)
        }
    }
    /^test .* FAILED$/ { has_failed[$2] = 1 }
    # Not anchored: with one test thread the harness has begun the line with the name of the test.
    match($0, /SKIPPED [A-Za-z0-9_:]+: .*/) {
        line = substr($0, RSTART, RLENGTH)
        name = line
        sub(/^SKIPPED /, "", name)
        sub(/: .*/, "", name)
        # The main thread runs the tests when there is one test thread; then only the reason tells
        # them apart.
        key = name == "main" ? line : name
        if (!(key in reasons)) reasons[key] = line
        names[key] = name
    }
    END {
        for (key in reasons) {
            print reasons[key] | "sort >&2"
            if (!(names[key] in has_failed)) skipped++
        }
        close("sort >&2")
        printf "%d %d %d\n", passed - skipped, failed, ignored + skipped
    }' "$1"
