"""Locust: users join the queue, poll as advised, hold a seat, charge the wallet and pay.

Refusals that the API contract allows (a seat that is taken, a concert that is sold out) are not
failures. The exit code shows whether the thresholds below were kept. See README.md.

USHER_SHAPE    spike, ramp or soak
USHER_USERS    users at the peak
USHER_SECONDS  length of the run
USHER_ADMIN    admin listener, with USHER_ADMIN_KEY: to create a queue and a concert for this run
"""

import json
import os
import random
import time
import urllib.request
import uuid

import gevent
from locust import FastHttpUser, LoadTestShape, events, task

PEAK_USERS = int(os.environ.get("USHER_USERS", "200"))
RUN_SECONDS = int(os.environ.get("USHER_SECONDS", "30"))
SHAPE = os.environ.get("USHER_SHAPE", "spike")
SEATS = 20_000
PRICE = 1_000
MAX_WAIT_SECONDS = 60
SPAWN_RATE = 100
QUEUE = f"locust-{uuid.uuid4().hex[:12]}"
SCHEDULE = f"{QUEUE}-1"

# Stages as (share of the run's length, share of the peak at the end of the stage).
SHAPES = {
    "spike": [(0.2, 0.1), (0.05, 1.0), (0.35, 1.0), (0.05, 0.1), (0.35, 0.1)],
    "ramp": [(0.25, 0.25), (0.25, 0.5), (0.25, 0.75), (0.25, 1.0)],
    "soak": [(0.05, 1.0), (0.95, 1.0)],
}

# Thresholds; times in milliseconds.
MAX_FAILURE_RATIO = 0.001
MAX_P95 = 1_000
MAX_P99 = 2_000

sold_seats = set()
violations = []


class StagedShape(LoadTestShape):
    """The shape of USHER_SHAPE, with linear changes within a stage."""

    def tick(self):
        return users_at(SHAPES[SHAPE], self.get_run_time() / RUN_SECONDS)


def users_at(stages, progress):
    """Users and spawn rate at a share of the run; None at its end."""
    begin, last = 0.0, 0.0
    for length, share in stages:
        if progress < begin + length:
            users = PEAK_USERS * (last + (share - last) * (progress - begin) / length)
            return max(1, round(users)), SPAWN_RATE
        begin, last = begin + length, share
    return None


@events.test_start.add_listener
def create_concert(environment, **_):
    """Creates a queue and a concert for this run, so that no seat is sold yet."""
    put(f"queues/{QUEUE}", {"promote_per_interval": 50, "interval_ms": 100, "max_active": 2_000})
    section = {"name": "All", "from": 1, "to": SEATS, "price": PRICE}
    schedule = {"id": SCHEDULE, "starts_at": "2037-01-01T00:00:00Z", "sections": [section]}
    put(f"concerts/{QUEUE}", {"title": "Locust", "schedules": [schedule]})


def put(path, body):
    url = f"{os.environ['USHER_ADMIN']}/admin/{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), method="PUT")
    request.add_header("Authorization", f"Bearer {os.environ['USHER_ADMIN_KEY']}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as response:
        assert response.status == 200


class TicketBuyer(FastHttpUser):
    """Plays one user after the other."""

    @task
    def buy_ticket(self):
        self.user, self.token = str(uuid.uuid4()), ""
        tokens = f"/v1/queues/{QUEUE}/tokens"
        ticket = self.send("POST", tokens, (200, 201), name="join")
        if ticket is None:
            return
        self.token = ticket["token"]
        if not self.wait_for_admission(ticket):
            return
        held = self.hold()
        if held is None:
            self.send("DELETE", f"{tokens}/me", (204,), name="leave")
            return
        charge = {"amount": PRICE}
        self.send("POST", "/v1/wallet/charges", (201,), charge, name="charge", key="charge")
        order = {"reservation_id": held["id"]}
        paid = self.send("POST", "/v1/payments", (201, 202), order, name="pay", key="pay")
        if paid is not None and paid["status"] == "confirmed":
            seat = held["seats"][0]["number"]
            if seat in sold_seats:
                violations.append(f"seat {seat} was sold twice")
            sold_seats.add(seat)

    def wait_for_admission(self, ticket):
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while ticket["status"] == "waiting" and not ticket["sold_out"]:
            if time.monotonic() >= deadline:
                return False
            position = ticket["position"]
            gevent.sleep(ticket["poll_after_ms"] / 1_000)
            # 410: admitted, and the claim window has passed.
            path = f"/v1/queues/{QUEUE}/tokens/me"
            ticket = self.send("GET", path, (200, 410), name="poll")
            if ticket is None or "status" not in ticket or ticket["status"] == 410:
                return False
            if ticket["position"] is not None and ticket["position"] > position:
                violations.append(f"a position rose from {position} to {ticket['position']}")
        return ticket["status"] == "active"

    def hold(self):
        """Holds a random seat, else the best one that is left."""
        body = {"schedule_id": SCHEDULE, "seats": [random.randint(1, SEATS)]}
        held = self.send("POST", "/v1/reservations", (201, 409), body, name="hold")
        if held is not None and "id" not in held:
            body = {"schedule_id": SCHEDULE, "quantity": 1}
            held = self.send("POST", "/v1/reservations/best", (201, 409), body, name="hold best")
        return held if held is not None and "id" in held else None

    def send(self, method, path, expected, body=None, *, name, key=None):
        """Returns the JSON of an expected response ({} without a body), else None."""
        headers = {"Usher-User": self.user}
        if self.token:
            headers["Queue-Token"] = self.token
        if key:
            headers["Idempotency-Key"] = f"{key}-{self.user}"
        with self.client.request(
            method, path, name=name, json=body, headers=headers, catch_response=True
        ) as response:
            if response.status_code in expected:
                response.success()
                return json.loads(response.text) if response.text else {}
            response.failure(f"{response.status_code}: {(response.text or '')[:200]}")
            return None


@events.quitting.add_listener
def check_thresholds(environment, **_):
    total = environment.stats.total
    found = list(violations)
    if total.num_requests == 0:
        found.append("no request was sent")
    if total.fail_ratio > MAX_FAILURE_RATIO:
        found.append(f"{total.fail_ratio:.2%} of the requests failed")
    for quantile, limit in ((0.95, MAX_P95), (0.99, MAX_P99)):
        latency = total.get_response_time_percentile(quantile)
        if latency is not None and latency > limit:
            found.append(f"p{quantile * 100:.0f} is {latency:.0f} ms, the limit is {limit} ms")
    for violation in found:
        print(f"BROKEN {violation}")
    result = "broken" if found else "kept"
    print(f"{SHAPE}: {len(sold_seats)} seats sold, each once; thresholds {result}")
    environment.process_exit_code = 1 if found else 0
