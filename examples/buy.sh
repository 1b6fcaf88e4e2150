#!/bin/sh
# Buys two seats with curl. Usage: buy.sh [address] (default: USHER_URL, then http://127.0.0.1:8080)
#
# curl retries after 429 and 503 and waits as long as Retry-After says. Every request here can be
# repeated safely: a second join returns the same ticket, and every other POST has an
# Idempotency-Key.
set -eu

base=${1:-${USHER_URL:-http://127.0.0.1:8080}}/v1
user=$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen | tr 'A-Z' 'a-z')

new_key() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# call METHOD PATH [curl options]: prints the response body, whatever the status is.
call() {
    method=$1 path=$2
    shift 2
    curl --silent --show-error --retry 8 --retry-max-time 120 --request "$method" \
        --header "Usher-User: $user" --header "Queue-Token: ${token:-}" \
        --header 'Content-Type: application/json' "$@" "$base$path"
}

# post PATH BODY: sends a POST with a new idempotency key, which curl repeats in its retries.
post() { call POST "$1" --header "Idempotency-Key: $(new_key)" --data "$2"; }

# field NAME: prints a field of the JSON object on standard input.
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }

# Join the queue. The token identifies the user from now on.
token=
ticket=$(call POST /queues/demo/tokens)
token=$(echo "$ticket" | field token)
while [ "$(echo "$ticket" | field status)" = waiting ]; do
    echo "position $(echo "$ticket" | field position)" >&2
    # `sleep` takes whole seconds in POSIX. Round the milliseconds up.
    sleep $((($(echo "$ticket" | field poll_after_ms) + 999) / 1000))
    ticket=$(call GET /queues/demo/tokens/me)
done

# Hold two adjacent seats. The hold lasts for a few minutes.
schedule=$(call GET /concerts/demo/schedules | sed 's/.*"items":\[{"id":"\([^"]*\)".*/\1/')
held=$(post /reservations/best "{\"schedule_id\":\"$schedule\",\"quantity\":2}")
reservation=$(echo "$held" | field id)
[ -n "$reservation" ] || { echo "no seats: $held" >&2; exit 1; }

# Charge the wallet and pay.
post /wallet/charges '{"amount":50000}' >/dev/null
payment=$(post /payments "{\"reservation_id\":\"$reservation\"}")
while [ "$(echo "$payment" | field status)" = pending ]; do
    sleep 1
    payment=$(call GET "/payments/$(echo "$payment" | field id)")
done
[ "$(echo "$payment" | field status)" = confirmed ] || { echo "not paid: $payment" >&2; exit 1; }
seats=$(echo "$held" | grep -o '"number":[0-9]*' | tr -dc '0-9\n' | paste -sd, -)
echo "bought: $seats for $(echo "$payment" | field paid)"
