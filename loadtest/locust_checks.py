"""What simulated users observe, and the checks at the end of a run."""

import time

from locust import events
from locust.runners import WorkerRunner
from usher_client import UsherClient, UsherError

DEFAULT_HOST = "http://127.0.0.1:8080"
# Thresholds. Times are in milliseconds.
MAX_FAILURE_RATIO = 0.001
MAX_P95 = 1_000
MAX_P99 = 2_000


class Observations:
    """What simulated users saw. Workers send it to the master, which checks it."""

    def __init__(self):
        self.seats = []
        self.coupon_issues = []
        self.violations = []

    def take(self):
        taken = vars(self).copy()
        self.__init__()
        return taken

    def add(self, taken):
        for name, items in taken.items():
            getattr(self, name).extend(items)


observations = Observations()


@events.report_to_master.add_listener
def send_observations(data, **_):
    data["observations"] = observations.take()


@events.worker_report.add_listener
def receive_observations(data, **_):
    observations.add(data.get("observations", {}))


def selects(options, scenario):
    """Whether `--tags` and `--exclude-tags` select a scenario."""
    included = not options.tags or scenario in options.tags
    return included and scenario not in (options.exclude_tags or [])


def report(environment, sentence):
    """Prints a sentence and shows it in the web interface, among the exceptions."""
    print(sentence)
    environment.runner.log_exception("check", sentence, sentence)


@events.test_stop.add_listener
def check_run(environment, **_):
    """Prints the result and sets the exit code."""
    options = environment.parsed_options
    if isinstance(environment.runner, WorkerRunner) or not getattr(options, "targets", None):
        return
    broken = observations.violations + broken_thresholds(environment.stats.total)
    for kind, items in [("seat", observations.seats), ("issue", observations.coupon_issues)]:
        broken += [f"{kind} {item} was given twice" for item in repeated(items)]
    result = [f"{len(observations.seats)} seats sold"]
    if selects(options, "coupon"):
        problem, sentence = check_coupon_count(environment)
        broken += problem
        result.append(sentence)
    for sentence in broken:
        report(environment, f"BROKEN {sentence}")
    print(f"{'; '.join(result)}; thresholds and promises {'broken' if broken else 'kept'}")
    environment.process_exit_code = 1 if broken else 0


@events.quitting.add_listener
def stop_on_interrupt(environment, **_):
    """Ctrl-C ends a run without stopping it first."""
    if not isinstance(environment.runner, WorkerRunner):
        environment.runner.stop()


def check_coupon_count(environment):
    """Compares the coupons that users received with the count of the service."""
    options, received = environment.parsed_options, len(set(observations.coupon_issues))
    try:
        with UsherClient(environment.host or DEFAULT_HOST) as usher:
            # The answer may be a second old.
            time.sleep(1.1)
            coupon = usher.get_coupon(options.targets["coupon"])
    except UsherError as error:
        return [f"the coupon cannot be read: {error}"], "coupon unknown"
    issued, total = coupon["issued_quantity"], coupon["total_quantity"]
    name, problems = coupon["id"], []
    if received > issued:
        problems.append(f"users received {received} coupons {name}, but {issued} are issued")
    if total is not None and issued > total:
        problems.append(f"{issued} of {total} coupons {name} are issued")
    if options.tags == ["coupon"] and issued != total:
        problems.append(f"{issued} of {total} coupons {name} are issued: the run was too short")
    return problems, f"coupon {name}: {issued} of {total} issued, {received} in this run"


def repeated(items):
    seen = set()
    return [item for item in items if item in seen or seen.add(item)]


def broken_thresholds(total):
    broken = []
    if total.num_requests == 0:
        broken.append("no request was sent")
    elif total.fail_ratio > MAX_FAILURE_RATIO:
        broken.append(f"{total.fail_ratio:.2%} of the requests failed")
    for quantile, limit in ((0.95, MAX_P95), (0.99, MAX_P99)):
        latency = total.get_response_time_percentile(quantile)
        if latency is not None and latency > limit:
            broken.append(f"p{quantile * 100:.0f} is {latency:.0f} ms, the limit is {limit} ms")
    return broken
