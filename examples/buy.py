#!/usr/bin/env python3
"""Buys two seats with Python's standard library. usage: buy.py [address]   (USHER_URL, http://127.0.0.1:8080)"""

import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
import uuid

BASE = (sys.argv[1] if len(sys.argv) > 1 else os.environ.get("USHER_URL", "http://127.0.0.1:8080")) + "/v1"
TRIES = 8


class Refused(Exception):
    """The service said no. `code` is a stable word to branch on, `body` the whole problem (RFC 9457)."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body.get('code')}: {body.get('detail')}")
        self.status, self.code, self.body = status, body.get("code"), body


class Usher:
    """One user's calls."""

    def __init__(self, user):
        self.user, self.token = user, None

    def call(self, method, path, body=None, key=None):
        """Asks again after 429 and 503, as late as Retry-After says, and after an answer that was lost.

        That is harmless where the call can be repeated: every GET, joining, and all that carries a key.
        """
        headers = {"Usher-User": self.user, "Content-Type": "application/json"}
        if self.token:
            headers["Queue-Token"] = self.token
        if key:
            headers["Idempotency-Key"] = key
        data = None if body is None else json.dumps(body).encode()
        for left in reversed(range(TRIES)):
            request = urllib.request.Request(BASE + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as refusal:
                if refusal.code not in (429, 503) or left == 0:
                    raise Refused(refusal.code, json.load(refusal)) from None
                wait = float(refusal.headers.get("Retry-After", 1))
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                if left == 0:
                    raise
                wait = 1.0
            # A little later each on their own, so that a crowd does not come back in one step.
            time.sleep(wait * random.uniform(1, 1.3))

    def enter(self, queue):
        """Gets in line, or back to the place there already is, and waits to be let in."""
        ticket = self.call("POST", f"/queues/{queue}/tokens")
        self.token = ticket["token"]
        while ticket["status"] == "waiting":
            print(f"place {ticket['position']}, about {ticket['estimated_wait_seconds']} s", file=sys.stderr)
            time.sleep(ticket["poll_after_ms"] / 1000)
            ticket = self.call("GET", f"/queues/{queue}/tokens/me")

    def pay(self, reservation):
        """One key from the first try to the last: however often this is repeated, it debits once."""
        payment = self.call("POST", "/payments", {"reservation_id": reservation["id"]}, key=str(uuid.uuid4()))
        while payment["status"] == "pending":
            time.sleep(0.5)
            payment = self.call("GET", f"/payments/{payment['id']}")
        return payment


def main():
    usher = Usher(str(uuid.uuid4()))
    usher.enter("demo")
    schedule = usher.call("GET", "/concerts/demo/schedules")["items"][0]
    held = usher.call("POST", "/reservations/best", {"schedule_id": schedule["id"], "quantity": 2})
    usher.call("POST", "/wallet/charges", {"amount": 50_000}, key=str(uuid.uuid4()))
    payment = usher.pay(held)
    if payment["status"] != "confirmed":
        sys.exit(f"not paid: {payment}")
    print("bought:", ",".join(str(seat["number"]) for seat in held["seats"]), "for", payment["paid"])


if __name__ == "__main__":
    main()
