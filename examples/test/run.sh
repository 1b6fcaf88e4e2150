#!/bin/sh
# Tests the example backends. Usage: examples/test/run.sh DIRECTORY
#
# DIRECTORY keeps a venv and compiled classes between runs. Each backend also checks users of a live
# Usher if USHER_URL is set. The Kotlin filters are skipped without kotlinc and the libraries below
# (packages of Debian: kotlin, libtomcat10-embed-java, libjakarta-annotation-api-java,
# libjackson2-databind-java).
set -eu

mkdir -p "$1"
directory=$(realpath "$1")
cd "$(dirname "$0")/.."

(
    cd node
    npm ci --no-audit --no-fund --loglevel=error
    npm run --silent build
)

EXAMPLES_PYTHON=$directory/venv/bin/python
[ -x "$EXAMPLES_PYTHON" ] || python3 -m venv "$directory/venv"
"$EXAMPLES_PYTHON" -m pip install --quiet --disable-pip-version-check \
    --requirement fastapi/requirements.txt mypy==2.4.1
(
    cd fastapi
    "$EXAMPLES_PYTHON" -m mypy --strict --cache-dir "$directory/mypy" .
    "$EXAMPLES_PYTHON" -B -m unittest
)

EXAMPLES_CLASS_PATH=
libraries=
for name in jackson-annotations jackson-core jackson-databind jakarta-annotation-api \
    kotlin-stdlib tomcat10-embed-core; do
    library=/usr/share/java/$name.jar
    [ -e "$library" ] || missing="${missing:-} $library"
    libraries=$libraries:$library
done
command -v kotlinc >/dev/null || missing="${missing:-} kotlinc"
if [ -z "${missing:-}" ]; then
    kotlinc -nowarn -cp "$libraries" -d "$directory/classes" \
        spring-boot/src/main/kotlin/AdmissionFilters.kt spring-boot/src/test/kotlin/FilterServer.kt
    EXAMPLES_CLASS_PATH=$directory/classes$libraries
else
    echo "The Kotlin filters are not tested. Missing:$missing"
fi

export EXAMPLES_CLASS_PATH EXAMPLES_PYTHON
node --test --test-reporter=tap --test-reporter-destination=stdout test/*.test.mjs
