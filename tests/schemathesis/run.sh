#!/bin/sh
# Lets Schemathesis ask both listeners of a live `usher dev` whatever their documents allow and don't: no answer may be a 500, of a status, a media type or a
# form that the document does not tell. Bounded by SCHEMATHESIS_SECONDS a document; SCHEMATHESIS_SEED asks the same in every run. usage: beside-dev.sh <usher> run.sh <schemathesis>
set -eu

schemathesis=$1
seconds=$SCHEMATHESIS_SECONDS
same=${SCHEMATHESIS_SEED:+--generation-deterministic --seed $SCHEMATHESIS_SEED}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp "$(dirname "$0")/schemathesis.toml" "$dir/"

user=00000000-0000-4000-8000-000000000001
token=$(curl -fsS -X POST -H "Usher-User: $user" "$USHER_URL/v1/queues/demo/tokens" | sed -n 's/.*"token":"\([^"]*\)".*/\1/p')
curl -fsS "$USHER_URL/openapi.json" >"$dir/public.json"
curl -fsS "$USHER_ADMIN/openapi.json" >"$dir/admin.json"

run() {
    document=$1
    shift
    # shellcheck disable=SC2086 # two words or none
    (cd "$dir" && "$schemathesis" run "$document" "$@" --max-time "$seconds" --max-examples 50 --request-timeout 60 --no-color $same \
        --phases examples,coverage,fuzzing --continue-on-failure \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance)
}
case $schemathesis in /*) ;; *) schemathesis=$PWD/$schemathesis ;; esac
# The stream of a ticket is left out: it does not end.
run public.json --url "$USHER_URL" --exclude-path-regex '/events$' --header "Usher-User: $user" --header "Queue-Token: $token"
run admin.json --url "$USHER_ADMIN" --header "Authorization: Bearer $USHER_ADMIN_KEY"
