"""A crowd in front of Usher, by Locust.

Each Locust user is one visitor after another: joins the line, polls as told by poll_after_ms, holds a seat, charges the wallet, pays.
Refusals that the contract foresees (a seat that is taken, a hall that is sold out) are answers, not failures. The exit code says whether
the thresholds at the end of this file were kept. See README.md beside this file.

USHER_SHAPE    spike, ramp or soak
USHER_USERS    visitors at the peak
USHER_SECONDS  length of the whole run
USHER_ADMIN    the admin listener, and USHER_ADMIN_KEY its key: makes a queue and a hall for this run
"""

import json
import os
import random
import time
import urllib.request
import uuid

import gevent
from locust import FastHttpUser, LoadTestShape, events, task

PEAK = int(os.environ.get("USHER_USERS", "200"))
SECONDS = int(os.environ.get("USHER_SECONDS", "30"))
SHAPE = os.environ.get("USHER_SHAPE", "spike")
SEATS = 20_000
PRICE = 1_000
PATIENCE = 60
SPAWN_RATE = 100
NAME = f"locust-{uuid.uuid4().hex[:12]}"
SCHEDULE = f"{NAME}-1"

# Shares of the run's length, each with the share of the peak that it ends at.
SHAPES = {
    "spike": [(0.2, 0.1), (0.05, 1.0), (0.35, 1.0), (0.05, 0.1), (0.35, 0.1)],
    "ramp": [(0.25, 0.25), (0.25, 0.5), (0.25, 0.75), (0.25, 1.0)],
    "soak": [(0.05, 1.0), (0.95, 1.0)],
}

# What a run must keep to; times in milliseconds.
MOST_FAILURES = 0.001
MOST_P95 = 1_000
MOST_P99 = 2_000

sold = set()
broken = []


class Shape(LoadTestShape):
    """The shape named by USHER_SHAPE, drawn by straight lines from corner to corner."""

    def tick(self):
        return level(SHAPES[SHAPE], self.get_run_time() / SECONDS)


def level(stages, at):
    """Users and spawn rate at a share of the run; None at its end."""
    begin, last = 0.0, 0.0
    for length, share in stages:
        if at < begin + length:
            users = PEAK * (last + (share - last) * (at - begin) / length)
            return max(1, round(users)), SPAWN_RATE
        begin, last = begin + length, share
    return None


@events.test_start.add_listener
def make_hall(environment, **_):
    """A queue and a concert of this run's own, so that one run finds no seats that another has sold."""
    put(f"queues/{NAME}", {"promote_per_interval": 50, "interval_ms": 100, "max_active": 2_000})
    section = {"name": "All", "from": 1, "to": SEATS, "price": PRICE}
    schedule = {"id": SCHEDULE, "starts_at": "2037-01-01T00:00:00Z", "sections": [section]}
    put(f"concerts/{NAME}", {"title": "Locust", "schedules": [schedule]})


def put(path, body):
    request = urllib.request.Request(f"{os.environ['USHER_ADMIN']}/admin/{path}", json.dumps(body).encode(), method="PUT")
    request.add_header("Authorization", f"Bearer {os.environ['USHER_ADMIN_KEY']}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


class Visitor(FastHttpUser):
    """One visitor after another."""

    @task
    def journey(self):
        self.user, self.token = str(uuid.uuid4()), ""
        ticket = self.ask("POST", f"/v1/queues/{NAME}/tokens", (200, 201), name="join")
        if ticket is None:
            return
        self.token = ticket["token"]
        if not self.wait_in_line(ticket):
            return
        held = self.hold()
        if held is None:
            self.ask("DELETE", f"/v1/queues/{NAME}/tokens/me", (204,), name="leave")
            return
        self.ask("POST", "/v1/wallet/charges", (201,), {"amount": PRICE}, name="charge", key="charge")
        paid = self.ask("POST", "/v1/payments", (201, 202), {"reservation_id": held["id"]}, name="pay", key="pay")
        if paid is not None and paid["status"] == "confirmed":
            seat = held["seats"][0]["number"]
            if seat in sold:
                broken.append(f"seat {seat} was sold twice")
            sold.add(seat)

    def wait_in_line(self, ticket):
        begun = time.monotonic()
        while ticket["status"] == "waiting" and not ticket["sold_out"] and time.monotonic() < begun + PATIENCE:
            position = ticket["position"]
            gevent.sleep(ticket["poll_after_ms"] / 1_000)
            # 410: let in and not back in time.
            ticket = self.ask("GET", f"/v1/queues/{NAME}/tokens/me", (200, 410), name="poll")
            if ticket is None or "status" not in ticket or ticket["status"] == 410:
                return False
            if ticket["position"] is not None and ticket["position"] > position:
                broken.append(f"a position went up from {position} to {ticket['position']}")
        return ticket["status"] == "active"

    def hold(self):
        body = {"schedule_id": SCHEDULE, "seats": [random.randint(1, SEATS)]}
        held = self.ask("POST", "/v1/reservations", (201, 409), body, name="hold")
        if held is not None and "id" not in held:
            body = {"schedule_id": SCHEDULE, "quantity": 1}
            held = self.ask("POST", "/v1/reservations/best", (201, 409), body, name="hold best")
        return held if held is not None and "id" in held else None

    def ask(self, method, path, expected, body=None, *, name, key=None):
        """The answer's JSON where its status is expected (an empty one is {}), else None and a failure in the statistics."""
        headers = {"Usher-User": self.user}
        if self.token:
            headers["Queue-Token"] = self.token
        if key:
            headers["Idempotency-Key"] = f"{key}-{self.user}"
        with self.client.request(method, path, name=name, json=body, headers=headers, catch_response=True) as answer:
            if answer.status_code in expected:
                answer.success()
                return json.loads(answer.text) if answer.text else {}
            answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")
            return None


@events.quitting.add_listener
def judge(environment, **_):
    """The exit code says whether the thresholds and the promises were kept."""
    total = environment.stats.total
    found = list(broken)
    if total.num_requests == 0:
        found.append("nothing was asked")
    if total.fail_ratio > MOST_FAILURES:
        found.append(f"{total.fail_ratio:.2%} of the requests failed")
    for quantile, most in ((0.95, MOST_P95), (0.99, MOST_P99)):
        took = total.get_response_time_percentile(quantile)
        if took is not None and took > most:
            found.append(f"p{quantile * 100:.0f} is {took:.0f} ms, allowed are {most}")
    for what in found:
        print(f"BROKEN {what}")
    print(f"{SHAPE}: {len(sold)} seats sold, each once; {'not all' if found else 'all'} thresholds kept")
    environment.process_exit_code = 1 if found else 0
