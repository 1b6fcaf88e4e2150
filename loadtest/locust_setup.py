"""The set-up of a run: what simulated users use, and whether a run can succeed."""

import uuid

import gevent
import httpx
from locust import events
from locust.runners import WorkerRunner
from locust_checks import DEFAULT_HOST, observations, report, selects
from usher_client import NetworkError, ProblemError, UsherClient, UsherError

DEMO = {"queue": "demo", "concert": "demo", "coupon": "demo-coupon", "reward": "demo-reward"}
# What a run with an admin key creates.
SEATS = 20_000
PRICE = 1_000
COUPONS = 500
POINTS = 500


class SetUpError(Exception):
    """Why the run cannot start, in one sentence."""


@events.test_start.add_listener
def set_up(environment, **_):
    observations.take()
    if isinstance(environment.runner, WorkerRunner):
        return
    options = environment.parsed_options
    try:
        # Locust sends the options to the workers.
        options.targets = create_targets(options) if options.admin_key else existing(options)
        check_targets(options, environment.host or DEFAULT_HOST)
    except (SetUpError, UsherError, httpx.HTTPError) as error:
        stop_run(environment, f"The set-up failed: {error}")


def stop_run(environment, sentence):
    """Stops the run before any simulated user starts."""
    environment.process_exit_code = 1
    environment.parsed_options.targets = None
    report(environment, sentence)
    if environment.parsed_options.headless:
        gevent.spawn(environment.runner.quit)
    # Ends the greenlet that starts the run, without a traceback.
    raise gevent.GreenletExit


def existing(options):
    return {kind: getattr(options, kind) or name for kind, name in DEMO.items()}


def create_targets(options):
    """Creates what the options do not name, so that no seat and no coupon is taken yet."""
    name = f"locust-{uuid.uuid4().hex[:12]}"
    times = {"starts_at": "2020-01-01T00:00:00Z", "ends_at": "2037-01-01T00:00:00Z"}
    section = {"name": "All", "from": 1, "to": SEATS, "price": PRICE}
    schedule = {"id": f"{name}-1", "starts_at": times["ends_at"], "sections": [section]}
    points = {"kind": "points", "amount": POINTS}
    definitions = {
        "queue": {"promote_per_interval": 50, "interval_ms": 100, "max_active": 2_000},
        "concert": {"title": "Locust", "queue_id": options.queue or name, "schedules": [schedule]},
        "coupon": {
            "title": "Locust",
            "total_quantity": COUPONS,
            "discount_amount": PRICE,
            "issue_starts_at": times["starts_at"],
            "issue_ends_at": times["ends_at"],
        },
        "reward": {"title": "Locust", "active": True, "conditions": [], "reward": points, **times},
    }
    targets = {kind: getattr(options, kind) or name for kind in definitions}
    headers = {"Authorization": f"Bearer {options.admin_key}"}
    with httpx.Client(base_url=options.admin, headers=headers) as admin:
        for kind, definition in definitions.items():
            if not getattr(options, kind):
                define(admin, f"/admin/{kind}s/{name}", definition)
        if not options.queue:
            # It admits no one, so that every user polls.
            targets["polled_queue"] = f"{name}-paused"
            paused = {**definitions["queue"], "mode": "paused"}
            define(admin, f"/admin/queues/{targets['polled_queue']}", paused)
    return targets


def define(admin, path, definition):
    try:
        response = admin.put(path, json=definition)
    except httpx.HTTPError as error:
        raise SetUpError(f"{admin.base_url} cannot be reached: {error}.") from error
    if not response.is_success:
        raise SetUpError(f"PUT {admin.base_url}{path} returned {response.status_code}.")


def check_targets(options, host):
    """Refuses a run that could only fail."""
    targets = options.targets
    try:
        with UsherClient(host, user=str(uuid.uuid4())) as usher:
            usher.get_wallet()
            if selects(options, "booking"):
                concert = usher.get_concert(targets["concert"])
                if not options.queue:
                    targets["queue"] = concert["queue_id"]
            if selects(options, "booking") or selects(options, "polling"):
                check_queue(usher, targets["queue"])
            if selects(options, "reward"):
                usher.get_reward(targets["reward"])
            if selects(options, "coupon"):
                check_coupon(usher, targets, is_rush=options.tags == ["coupon"])
    except NetworkError as error:
        raise SetUpError(f"{host} cannot be reached.") from error
    except ProblemError as error:
        if error.code == "unauthenticated":
            raise SetUpError(f"{host} must identify users by a header (USHER_AUTH).") from error
        names = ", ".join(f"{kind} {targets[kind]}" for kind in DEMO)
        raise SetUpError(f"{host} refused a call: {error} The targets are {names}.") from error


def check_queue(usher, queue):
    if usher.get_queue(queue)["mode"] == "closed":
        raise SetUpError(f"The queue {queue} is closed.")


def check_coupon(usher, targets, is_rush):
    coupon = usher.get_coupon(targets["coupon"])
    if is_rush and coupon["status"] != "open":
        state = coupon["status"].replace("_", " ")
        name = coupon["id"]
        raise SetUpError(f"The coupon {name} is {state}; with --admin-key a run has its own.")
