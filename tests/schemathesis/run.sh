#!/bin/sh
# Sends requests that both OpenAPI documents allow, and others, to a live `usher dev`. A response
# must not be a 500, and its status, media type and body must be in the document.
# SCHEMATHESIS_SECONDS bounds each document. With SCHEMATHESIS_SEED every run sends the same.
# Usage: beside-dev.sh <usher> run.sh <schemathesis>
set -eu

schemathesis=$1
seconds=$SCHEMATHESIS_SECONDS
same=${SCHEMATHESIS_SEED:+--generation-deterministic --seed $SCHEMATHESIS_SEED}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# A user with a sold reservation, its payment, and a held reservation.
user=00000000-0000-4000-8000-000000000001
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
id() { sed -n 's/^{"id":"\([^"]*\)".*/\1/p'; }
post() {
    path=$1
    shift
    curl -fsS -X POST -H "Usher-User: $user" -H "Queue-Token: ${token:-}" \
        -H "Idempotency-Key: schemathesis-$path" -H 'Content-Type: application/json' "$@" \
        "$USHER_URL/v1/$path"
}
join() {
    token=$(post queues/demo/tokens | field token)
    until curl -fsS -H "Queue-Token: $token" "$USHER_URL/v1/queues/demo/tokens/me" | grep -q '"active",'; do
        sleep 0.2
    done
}
join
sold=$(post reservations -d '{"schedule_id":"demo-1","seats":[1]}' | id)
post wallet/charges -d '{"amount":1000000}' >"$dir/charge"
payment=$(post payments -d "{\"reservation_id\":\"$sold\"}" | id)
join
held=$(post reservations/best -d '{"schedule_id":"demo-1","quantity":1}' | id)
sed "s/{user}/$user/; s/{held}/$held/; s/{sold}/$sold/; s/{payment}/$payment/" \
    "$(dirname "$0")/schemathesis.toml" >"$dir/schemathesis.toml"

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
# Streams are left out: they do not end.
run public.json --url "$USHER_URL" --exclude-path-regex '/events$' --header "Usher-User: $user" --header "Queue-Token: $token"
run admin.json --url "$USHER_ADMIN" --header "Authorization: Bearer $USHER_ADMIN_KEY"
