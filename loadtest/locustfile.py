"""Locust: simulated users wait, book seats, request a coupon and claim a reward.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8080

`--tags` selects scenarios: booking, coupon, reward, polling. Without an admin key the run uses what
exists, by default the demo data of `usher dev`. With one it creates its own queue, concert, coupon
and reward. Every call goes through `usher_client`, so simulated users poll and retry as it does.

Refusals that the API contract allows (a seat that is taken, a coupon that is sold out) are no
failures. At the end of a run the thresholds and the promises of the service are checked: no seat
and no coupon twice, exactly as many coupons as there are. See README.md.
"""

import logging
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
from locust import FastHttpUser, LoadTestShape, constant, events, tag, task
from locust.runners import WorkerRunner

# From this checkout, unless it is installed.
sys.path.append(str(Path(__file__).resolve().parents[1] / "clients/python/src"))

import httpx
import locust_setup  # noqa: F401 (its listener sets up a run)
from locust_checks import DEFAULT_HOST, observations
from locust_transport import ALLOWED_REFUSALS, LocustTransport
from usher_client import ProblemError, UsherClient, UsherError, WaitTimeoutError

# It logs every request.
logging.getLogger("httpx").setLevel(logging.WARNING)

MAX_WAIT_SECONDS = 60
# The pause after an error that the client did not overcome.
ERROR_PAUSE_SECONDS = 1
SHAPE_SECONDS = 60

# Shapes: stages as (share of the run's length, share of the users at the end of the stage).
SHAPES = {
    "spike": [(0.2, 0.1), (0.05, 1.0), (0.35, 1.0), (0.05, 0.1), (0.35, 0.1)],
    "ramp": [(0.25, 0.25), (0.25, 0.5), (0.25, 0.75), (0.25, 1.0)],
    "soak": [(0.05, 1.0), (0.95, 1.0)],
}


@events.init_command_line_parser.add_listener
def add_arguments(parser):
    parser.add_argument("--queue", default="", help="Queue that users join (default: demo)")
    parser.add_argument("--concert", default="", help="Concert that users book (default: demo)")
    for kind, use in [("coupon", "request"), ("reward", "claim")]:
        text = f"{kind.title()} that users {use} (default: demo-{kind})"
        parser.add_argument(f"--{kind}", default="", help=text)
    parser.add_argument(
        "--admin",
        env_var="USHER_ADMIN",
        default="http://127.0.0.1:8081",
        help="Address of the admin listener, for a run with an admin key",
    )
    parser.add_argument(
        "--admin-key",
        env_var="USHER_ADMIN_KEY",
        default="",
        is_secret=True,
        help="With it, a run creates what the other fields do not name",
    )
    parser.add_argument(
        "--shape",
        choices=list(SHAPES),
        include_in_web_ui=False,
        help="Changes the number of users during the run; --users is the peak",
    )


class StagedShape(LoadTestShape):
    """The shape of `--shape`, with linear changes within a stage."""

    # Locust uses every shape that it finds, unless it is abstract. `--shape` selects this one.
    abstract = True
    use_common_options = True

    def tick(self):
        options = self.runner.environment.parsed_options
        peak, seconds = options.num_users or 1, options.run_time or SHAPE_SECONDS
        begin, last = 0.0, 0.0
        progress = self.get_run_time() / seconds
        for length, share in SHAPES[options.shape]:
            if progress < begin + length:
                users = peak * (last + (share - last) * (progress - begin) / length)
                return max(1, round(users)), peak
            begin, last = begin + length, share
        return None


@events.init.add_listener
def initialize(environment, runner, **_):
    if isinstance(runner, WorkerRunner):
        return
    if environment.parsed_options.headless:
        # Until the checks at the end of the run have passed.
        environment.process_exit_code = 1
    if environment.parsed_options.shape:
        environment.shape_class = StagedShape()
        environment.shape_class.runner = runner


class Visitor(FastHttpUser):
    """Plays one person after the other."""

    host = DEFAULT_HOST
    wait_time = constant(0)

    def on_start(self):
        # Proxy settings of the environment are for Locust's client, which sends the requests.
        self.http = httpx.Client(transport=LocustTransport(self.client), trust_env=False)

    @property
    def targets(self):
        return self.environment.parsed_options.targets

    @contextmanager
    def person(self) -> Iterator[UsherClient]:
        """A new user. An error ends their visit; Locust has counted the failed calls."""
        try:
            yield UsherClient(self.host, user=str(uuid.uuid4()), http=self.http)
        except WaitTimeoutError:
            pass
        except UsherError as error:
            if not isinstance(error, ProblemError) or error.code not in ALLOWED_REFUSALS:
                gevent.sleep(ERROR_PAUSE_SECONDS)

    @tag("booking")
    @task(5)
    def book_seat(self):
        with self.person() as usher:
            visit = usher.join_queue(self.targets["queue"])
            if not wait_for_admission(visit):
                return visit.leave()
            held = self.hold_seat(visit)
            if held is None:
                return visit.leave()
            usher.charge_wallet(held["amount"])
            payment = visit.pay(held["id"])
            if payment["status"] == "confirmed":
                schedule, [seat] = held["schedule_id"], held["seats"]
                observations.seats.append(f"{schedule} {seat['number']}")

    def hold_seat(self, visit):
        """Holds a seat of the first date that has one: any seat, else the best one that is left."""
        dates = visit.list_schedules(self.targets["concert"])
        date = next((date for date in dates if date["bookable"]), None)
        if date is None:
            return None
        seat = 1 + uuid.uuid4().int % date["total_seats"]
        try:
            return visit.hold_seats(date["id"], [seat])
        except ProblemError as error:
            if error.code != "seat_taken":
                raise
        return visit.hold_best_seats(date["id"], 1)

    @tag("polling")
    @task(3)
    def poll(self):
        """Waits, and leaves at the turn or after a minute."""
        with self.person() as usher:
            queue = self.targets.get("polled_queue", self.targets["queue"])
            visit = usher.join_queue(queue)
            try:
                wait_for_admission(visit)
            finally:
                visit.leave()

    @tag("coupon")
    @task(1)
    def request_coupon(self):
        """Requests a coupon twice. The second request returns the same issue."""
        with self.person() as usher:
            coupon = self.targets["coupon"]
            issue = usher.issue_coupon(coupon)
            observations.coupon_issues.append(issue["id"])
            again = usher.issue_coupon(coupon)
            if again["id"] != issue["id"]:
                observations.violations.append(f"a user has two issues of the coupon {coupon}")

    @tag("reward")
    @task(1)
    def claim_reward(self):
        """Claims a reward twice at once. At most one claim is paid."""
        with self.person() as usher:
            reward = self.targets["reward"]
            claims = [gevent.spawn(try_claim, usher, reward) for _ in range(2)]
            gevent.joinall(claims, raise_error=True)
            paid = sum(claim.value for claim in claims)
            if paid > 1:
                observations.violations.append(f"the reward {reward} was paid twice to one user")
            usher.get_wallet()


def wait_for_admission(visit):
    """Polls as advised. Returns whether the user was admitted before the concert was sold out."""
    last = None
    for ticket in visit.tickets(timeout=MAX_WAIT_SECONDS):
        position = ticket["position"]
        if last is not None and position is not None and position > last:
            observations.violations.append(f"a position rose from {last} to {position}")
        last = position
        if ticket["status"] == "waiting" and ticket["sold_out"]:
            return False
    return True


def try_claim(usher, reward):
    try:
        usher.claim_reward(reward)
    except ProblemError as error:
        if error.code not in ALLOWED_REFUSALS:
            raise
        return 0
    return 1
