# Runs a server for as long as its owner lives. The owner holds the other end of this script's standard input: when it
# lets go, on purpose or because it was killed, the server is asked to stop, and killed when it doesn't.
#
# Arguments: the grace in seconds between asking and killing, then the server and its arguments.
# Output: the server's process id on a line. The server writes to standard error, which is its log.
# Status: the server's.

grace=$1
shift

exec 3<&0
"$@" </dev/null >&2 3<&- &
server=$!
echo "$server"

# Watches the owner. It writes nowhere, so that it never keeps the log, and with it the log's lock, open.
(
    while read -r _; do :; done
    kill -TERM "$server"
    while [ "$grace" -gt 0 ]; do
        sleep 1
        grace=$((grace - 1))
    done
    kill -KILL "$server"
) <&3 >/dev/null 2>&1 &
watcher=$!
exec 3<&-

wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
