#!/bin/sh
# Buys two seats with curl. usage: buy.sh [address]   (USHER_URL, http://127.0.0.1:8080)
#
# curl itself asks again after 429 and 503, when Retry-After says so. That is harmless: joining twice gives the same place,
# and whatever moves money carries an Idempotency-Key.
set -eu

base=${1:-${USHER_URL:-http://127.0.0.1:8080}}/v1
user=$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen | tr 'A-Z' 'a-z')
key() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

call() { # method path [curl's arguments]: the body, whatever the status is
    method=$1 path=$2
    shift 2
    curl --silent --show-error --retry 8 --retry-max-time 120 --request "$method" --header "Usher-User: $user" \
        --header "Queue-Token: ${token:-}" --header 'Content-Type: application/json' "$@" "$base$path"
}
field() { # name: what a field of the JSON on standard input says
    sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"
}

# One place in line, however often this is asked; the token proves it from now on.
token=
ticket=$(call POST /queues/demo/tokens)
token=$(echo "$ticket" | field token)
while [ "$(echo "$ticket" | field status)" = waiting ]; do
    echo "place $(echo "$ticket" | field position)" >&2
    # Shells sleep whole seconds: the service says milliseconds.
    sleep $((($(echo "$ticket" | field poll_after_ms) + 999) / 1000))
    ticket=$(call GET /queues/demo/tokens/me)
done

# Two seats side by side, held for some minutes.
schedule=$(call GET /concerts/demo/schedules | sed 's/.*"items":\[{"id":"\([^"]*\)".*/\1/')
held=$(call POST /reservations/best --data "{\"schedule_id\":\"$schedule\",\"quantity\":2}")
reservation=$(echo "$held" | field id)
[ -n "$reservation" ] || { echo "no seats: $held" >&2; exit 1; }

# Money in, seats bought. The same key again would give the same answer and debit nothing.
call POST /wallet/charges --header "Idempotency-Key: $(key)" --data '{"amount":50000}' >/dev/null
once=$(key)
payment=$(call POST /payments --header "Idempotency-Key: $once" --data "{\"reservation_id\":\"$reservation\"}")
while [ "$(echo "$payment" | field status)" = pending ]; do
    sleep 1
    payment=$(call GET "/payments/$(echo "$payment" | field id)")
done
[ "$(echo "$payment" | field status)" = confirmed ] || { echo "not paid: $payment" >&2; exit 1; }
echo "bought: $(echo "$held" | grep -o '"number":[0-9]*' | tr -dc '0-9\n' | paste -sd, -) for $(echo "$payment" | field paid)"
