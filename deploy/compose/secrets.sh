#!/bin/bash
# Makes the secrets of docker-compose.yml once, each file readable by the user of one container only.
set -euo pipefail
umask 077
cd "${1:-/secrets}"

random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# keep NAME OWNER TEXT: what exists stays, because the stores remember their passwords.
keep() {
    [ -e "$1" ] && return
    printf '%s\n' "$3" >"$1.new"
    chown "$2" "$1.new"
    mv "$1.new" "$1"
}

keep redis 0 "$(random)"
keep mysql 999 "$(random)"
keep mysql-root 999 "$(random)"
keep grafana 472 "$(random)"
# MySQL generates its certificate, so the connection is encrypted but not authenticated.
keep usher.env 10001 "USHER_REDIS_URL=redis://:$(cat redis)@redis:6379
USHER_MYSQL_URL='mysql://usher:$(cat mysql)@mysql:3306/usher?ssl-mode=required'
USHER_TOKEN_KEYS=k1:$(random)
USHER_ADMIN_KEYS=operator:admin:$(random),visitor:viewer:$(random)"
