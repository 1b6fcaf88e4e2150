"""Runs Locust and k6 against the service at USHER_URL. `make test-loadtest` starts one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

LOADTEST = Path(__file__).resolve().parent
URL = os.environ["USHER_URL"]
ADMIN = os.environ["USHER_ADMIN"]
TIMEOUT = 90


def environment(with_admin_key):
    hidden = () if with_admin_key else ("USHER_ADMIN", "USHER_ADMIN_KEY")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def start(*arguments, with_admin_key=True):
    command = [sys.executable, "-m", "locust", "-f", LOADTEST / "locustfile.py", "--host", URL]
    return subprocess.Popen(
        [*command, *arguments],
        env=environment(with_admin_key),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(*arguments, with_admin_key=True):
    """Returns the exit code and the output of a run without the web interface."""
    process = start("--headless", "--only-summary", *arguments, with_admin_key=with_admin_key)
    return finish(process)


def finish(process):
    with process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    return process.returncode, output


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def eventually(condition):
    deadline = time.monotonic() + TIMEOUT
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("timeout")
        time.sleep(0.1)
    return result


def define(path, definition):
    request = urllib.request.Request(f"{ADMIN}/admin/{path}", json.dumps(definition).encode())
    request.method = "PUT"
    request.add_header("Authorization", f"Bearer {os.environ['USHER_ADMIN_KEY']}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=5) as response:
        assert response.status == 200


def fetch(url, form=None):
    body = None if form is None else urllib.parse.urlencode(form).encode()
    try:
        with urllib.request.urlopen(url, body, timeout=5) as response:
            return response.read().decode()
    except urllib.error.URLError:
        return None


class LocustTest(unittest.TestCase):
    def test_booking_sells_seats(self):
        code, output = run("--tags", "booking", "-u", "20", "-r", "20", "-t", "5s")
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"[1-9]\d* seats sold; thresholds and promises kept")
        for name in ("join", "list dates", "hold", "charge", "pay"):
            self.assertRegex(output, rf"(GET|POST) +{name} ")
        self.assertNotIn("request coupon", output)

    def test_polling_only_polls(self):
        code, output = run("--tags", "polling", "-u", "20", "-r", "20", "-t", "9s")
        self.assertEqual(code, 0, output)
        names = set(re.findall(r"^(?:GET|POST|DELETE) +(\S+)", output, re.MULTILINE))
        self.assertLessEqual({"join", "poll"}, names)
        self.assertLessEqual(names, {"join", "poll", "leave"})

    def test_reward_is_paid_once(self):
        code, output = run("--tags", "reward", "-u", "10", "-r", "10", "-t", "4s")
        self.assertEqual(code, 0, output)
        self.assertIn("claim reward", output)

    def test_coupon_rush_on_the_demo_data_issues_exactly_500(self):
        rush = ("--tags", "coupon", "-u", "20", "-r", "20", "-t", "8s")
        code, output = run(*rush, with_admin_key=False)
        self.assertEqual(code, 0, output)
        self.assertIn("coupon demo-coupon: 500 of 500 issued, 500 in this run", output)
        code, output = run(*rush, with_admin_key=False)
        self.assertRefused(code, output, "The coupon demo-coupon is sold out;")

    def test_a_rush_that_leaves_coupons_does_not_pass(self):
        define("coupons/too-many", {
            "title": "More than a short run can issue",
            "total_quantity": 1_000_000,
            "discount_amount": 1,
            "issue_starts_at": "2020-01-01T00:00:00Z",
            "issue_ends_at": "2037-01-01T00:00:00Z",
        })
        code, output = run("--tags", "coupon", "--coupon", "too-many", "-u", "1", "-t", "3s")
        self.assertEqual(code, 1, output)
        self.assertRegex(output, r"BROKEN \d+ of 1000000 coupons too-many are issued")

    def test_two_workers_share_a_rush(self):
        port = free_port()
        rush = ("--tags", "coupon", "-u", "20", "-r", "20", "-t", "8s")
        ends = ("--master-bind-port", port, "--master-bind-host", "127.0.0.1")
        master = start(
            "--master", "--headless", "--only-summary", "--expect-workers", "2", *ends, *rush
        )
        # Workers get every option from the master.
        worker = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
        workers = [start(*worker, with_admin_key=False) for _ in range(2)]
        code, output = finish(master)
        counts = [finish(process)[0] for process in workers]
        self.assertEqual((code, counts), (0, [0, 0]), output)
        self.assertRegex(output, r"coupon locust-\w+: 500 of 500 issued, 500 in this run")

    def test_the_shape_is_selected_by_an_option(self):
        code, output = run("--tags", "booking", "--shape", "spike", "-u", "20", "-t", "5s")
        self.assertEqual(code, 0, output)
        self.assertIn("Shape test updating to 20 users", output)

    def test_a_failed_set_up_is_one_sentence(self):
        closed = f"http://127.0.0.1:{free_port()}"
        for arguments, sentence in [
            (("--queue", "nowhere"), "404 not_found"),
            (("--host", closed), f"{closed} cannot be reached."),
            (("--admin", ADMIN, "--admin-key", "wrong"), "returned 401."),
            (("--admin", closed, "--admin-key", "key"), f"{closed} cannot be reached"),
        ]:
            with self.subTest(sentence):
                code, output = run("-t", "5s", *arguments, with_admin_key=False)
                self.assertRefused(code, output, sentence)

    def test_a_failed_set_up_ends_a_distributed_run(self):
        port = free_port()
        ends = ("--master-bind-port", port, "--master-bind-host", "127.0.0.1")
        master = start("--master", "--headless", "--expect-workers", "1", "--queue", "nowhere",
                       *ends, with_admin_key=False)
        worker = start("--worker", "--master-host", "127.0.0.1", "--master-port", port)
        code, output = finish(master)
        finish(worker)
        self.assertRefused(code, output, "404 not_found")

    def test_ctrl_c_ends_a_run_with_its_checks(self):
        process = start("--headless", "--tags", "booking", "-u", "5", "-r", "5")
        while not re.match(r"POST +pay +[1-9]", line := process.stdout.readline()):
            self.assertTrue(line, "Locust ended")
        process.send_signal(signal.SIGINT)
        code, output = finish(process)
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"[1-9]\d* seats sold; thresholds and promises kept")

    def test_the_web_interface_has_the_arguments_and_runs(self):
        web = f"http://127.0.0.1:{(port := free_port())}"
        process = start("--web-host", "127.0.0.1", "--web-port", port, with_admin_key=False)
        try:
            page = eventually(lambda: fetch(f"{web}/"))
            for name in ("queue", "concert", "coupon", "reward", "admin", "admin_key"):
                self.assertIn(f'"{name}": {{', page)
            form = {"user_count": 5, "spawn_rate": 5, "host": URL}
            fetch(f"{web}/swarm", {**form, "queue": "nowhere"})
            eventually(lambda: "404 not_found" in (fetch(f"{web}/exceptions") or ""))
            fetch(f"{web}/swarm", {**form, "queue": ""})
            eventually(lambda: '"name": "hold' in fetch(f"{web}/stats/requests"))
            fetch(f"{web}/stop", {})
        finally:
            process.terminate()
        _, output = finish(process)
        self.assertRegex(output, r"\d seats sold; coupon demo-coupon: .* thresholds and promises")

    def assertRefused(self, code, output, sentence):
        self.assertEqual(code, 1, output)
        self.assertIn("The set-up failed: ", output)
        self.assertIn(sentence, output)
        self.assertNotIn("Traceback", output)
        self.assertNotRegex(output, r"(?m)^(GET|POST) ")


class K6Test(unittest.TestCase):
    def test_scripts(self):
        k6 = Path(sys.executable).with_name("k6")
        if not k6.exists():
            self.skipTest("k6 is not installed")
        for script in ("polling", "coupon", "reward"):
            with self.subTest(script):
                command = [k6, "run", "--quiet", "--no-usage-report", LOADTEST / f"{script}.js"]
                result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
                if script == "coupon":
                    self.assertIn("500 of 500 issued", result.stderr)


if __name__ == "__main__":
    unittest.main()
