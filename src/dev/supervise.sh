# Runs a server as long as its owner lives. The owner holds the other end of this script's standard
# input. When that end is closed, on purpose or because the owner was killed, the script sends SIGTERM to
# the server, and SIGKILL if the server does not stop in time.
#
# Arguments: the seconds between SIGTERM and SIGKILL, then the server and its arguments.
# Output: the process id of the server on one line. The server writes to standard error, its log.
# Status: the exit status of the server.

seconds=$1
shift

exec 3<&0
"$@" </dev/null >&2 3<&- &
server=$!
echo "$server"

# Watches the owner. Its output is closed, so that it never keeps the log and its lock open.
(
    while read -r _; do :; done
    kill -TERM "$server"
    while [ "$seconds" -gt 0 ]; do
        sleep 1
        seconds=$((seconds - 1))
    done
    kill -KILL "$server"
) <&3 >/dev/null 2>&1 &
watcher=$!
exec 3<&-

wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
