#!/usr/bin/env python3
"""Buys two seats with Python's standard library.

Usage: buy.py [address] (default: USHER_URL, then http://127.0.0.1:8080)

clients/python is the typed client. This file shows the HTTP calls behind it.
"""

import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
import uuid

DEFAULT_URL = os.environ.get("USHER_URL", "http://127.0.0.1:8080")
BASE_URL = (sys.argv[1] if len(sys.argv) > 1 else DEFAULT_URL) + "/v1"
MAX_ATTEMPTS = 8
RETRIED_STATUSES = (429, 500, 502, 503, 504)


class ProblemError(Exception):
    """A response with an error status (RFC 9457). `code` is stable."""

    def __init__(self, status, text):
        try:
            self.body = json.loads(text)
        except ValueError:
            # A proxy answered with its own page.
            self.body = {}
        self.status, self.code = status, self.body.get("code")
        super().__init__(f"{status} {self.code}: {self.body.get('detail')}")


class UsherClient:
    """Calls the API as one user."""

    def __init__(self, user):
        self.user, self.token = user, None

    def call(self, method, path, body=None, key=None):
        """Sends a request and retries it after a lost response or a temporary error.

        Every retry sends the same idempotency key, so that the service runs the request once.
        """
        headers = {"Usher-User": self.user, "Content-Type": "application/json"}
        if self.token:
            headers["Queue-Token"] = self.token
        if key:
            headers["Idempotency-Key"] = key
        data = None if body is None else json.dumps(body).encode()
        for attempts_left in reversed(range(MAX_ATTEMPTS)):
            request = urllib.request.Request(BASE_URL + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code not in RETRIED_STATUSES or attempts_left == 0:
                    raise ProblemError(error.code, error.read()) from None
                delay = float(error.headers.get("Retry-After", 1))
            except OSError:
                if attempts_left == 0:
                    raise
                delay = 1.0
            # Jitter prevents simultaneous retries of many clients.
            time.sleep(delay * random.uniform(1, 1.3))

    def post(self, path, body):
        """Sends a POST with a new idempotency key."""
        return self.call("POST", path, body, key=str(uuid.uuid4()))

    def enter(self, queue):
        """Joins the queue, or finds the existing ticket, and waits for admission."""
        ticket = self.call("POST", f"/queues/{queue}/tokens")
        self.token = ticket["token"]
        while ticket["status"] == "waiting":
            position, wait = ticket["position"], ticket["estimated_wait_seconds"]
            print(f"position {position}, estimated wait {wait} s", file=sys.stderr)
            time.sleep(ticket["poll_after_ms"] / 1000)
            ticket = self.call("GET", f"/queues/{queue}/tokens/me")

    def pay(self, reservation):
        """Pays for a reservation from the wallet and waits for the result."""
        payment = self.post("/payments", {"reservation_id": reservation["id"]})
        while payment["status"] == "pending":
            time.sleep(0.5)
            payment = self.call("GET", f"/payments/{payment['id']}")
        return payment


def main():
    usher = UsherClient(str(uuid.uuid4()))
    usher.enter("demo")
    schedule = usher.call("GET", "/concerts/demo/schedules")["items"][0]
    held = usher.post("/reservations/best", {"schedule_id": schedule["id"], "quantity": 2})
    usher.post("/wallet/charges", {"amount": 50_000})
    payment = usher.pay(held)
    if payment["status"] != "confirmed":
        sys.exit(f"not paid: {payment}")
    seats = ",".join(str(seat["number"]) for seat in held["seats"])
    print(f"bought: {seats} for {payment['paid']}")


if __name__ == "__main__":
    main()
