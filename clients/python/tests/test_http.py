"""The clients against a real HTTP server: broken connections, timeouts, streams, cancellation."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
import unittest
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import environ
from pathlib import Path
from typing import Any

from usher_client import (
    AsyncUsherClient,
    Clock,
    NetworkError,
    ProblemError,
    RetryPolicy,
    UsherClient,
    WaitTimeoutError,
    new_idempotency_key,
)

TICKET: dict[str, Any] = {"token": "t1", "status": "waiting", "position": 2, "poll_after_ms": 10}
ACTIVE = {**TICKET, "token": "t2", "status": "active", "position": None}
RETRY = RetryPolicy(base_delay=0.001, max_delay=0.002)

Handler = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """Serves requests with one handler each, in order."""

    protocol_version = "HTTP/1.1"
    server: FakeServer

    def serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(self)
        self.server.handlers.pop(0)(self)

    do_GET = do_POST = do_DELETE = serve

    def log_message(self, *_: object) -> None:
        pass


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *handlers: Handler) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.handlers = list(handlers)
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        # A client that closes its connection is part of the tests.
        pass


def answer(status: int, body: object) -> Handler:
    def handle(request: Request) -> None:
        text = json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    return handle


def disconnect(request: Request) -> None:
    request.close_connection = True


def disconnect_in_body(request: Request) -> None:
    request.send_response(201)
    request.send_header("Content-Length", "100")
    request.end_headers()
    request.wfile.write(b'{"id":')
    request.close_connection = True


def refuse(request: Request) -> None:
    request.send_response(503)
    request.send_header("Retry-After", "7")
    request.send_header("Content-Length", "2")
    request.end_headers()
    request.wfile.write(b"{}")


def hang(_: Request) -> None:
    time.sleep(1)


def stream(*tickets: object, closed: threading.Event | None = None) -> Handler:
    """Sends tickets in pieces and stays open until the client closes the connection."""

    def handle(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.end_headers()
        events = (f"event: ticket\ndata: {json.dumps(ticket)}\n\n" for ticket in tickets)
        data = b":\n\n" + "".join(events).encode()
        try:
            for at in range(0, len(data), 7):
                request.wfile.write(data[at : at + 7])
                request.wfile.flush()
            while True:
                request.wfile.write(b":\n\n")
                time.sleep(0.02)
        except OSError:
            if closed is not None:
                closed.set()
        request.close_connection = True

    return handle


class SyncHttp(unittest.TestCase):
    def test_lost_responses_are_repeated_with_one_key(self) -> None:
        entry = {"id": "e1", "amount": 5}
        with (
            FakeServer(disconnect, disconnect_in_body, hang, answer(201, entry)) as server,
            UsherClient(server.url, user="42", retry=RETRY, timeout=0.2) as client,
        ):
            self.assertEqual(client.charge_wallet(5), entry)
            keys = {request.headers["Idempotency-Key"] for request in server.requests}
            bodies = {request.body for request in server.requests}
            self.assertEqual((len(server.requests), len(keys)), (4, 1))
            self.assertEqual(bodies, {b'{"amount": 5}'})

    def test_a_poll_waits_as_long_as_retry_after_asks(self) -> None:
        sleeps: list[float] = []
        handlers = answer(201, TICKET), refuse, answer(200, TICKET), answer(200, ACTIVE)
        clock = Clock(now=lambda: 0.0, random=lambda: 0.0)
        retry = RetryPolicy(max_attempts=1)
        with (
            FakeServer(*handlers) as server,
            UsherClient(server.url, retry=retry, clock=clock, sleep=sleeps.append) as client,
        ):
            client.join_queue("demo").wait_until_active()
        self.assertEqual(sleeps, [0.01, 7.0, 0.01])

    def test_a_call_without_a_method_is_sent_as_it_is(self) -> None:
        with (
            FakeServer(answer(200, {"sections": []})) as server,
            UsherClient(server.url, user="42") as client,
        ):
            path = "/v1/schedules/demo-1/layout"
            layout = client.request("GET", path, query={"section": "A & B"})
            self.assertEqual(layout, {"sections": []})
            self.assertEqual(server.requests[0].path, f"{path}?section=A+%26+B")

    def test_errors_say_whether_the_same_call_may_succeed_later(self) -> None:
        self.assertTrue(NetworkError("").is_temporary)
        for status in (408, 425, 429, 500, 502, 503):
            self.assertTrue(ProblemError(status, {}).is_temporary, status)
        for status in (400, 401, 403, 404, 409, 410, 422):
            self.assertFalse(ProblemError(status, {}).is_temporary, status)

    def test_no_server_is_a_network_error(self) -> None:
        with UsherClient("http://127.0.0.1:1", retry=RETRY) as client:
            self.assertRaises(NetworkError, client.get_wallet)

    def test_a_stream_is_read_in_pieces_and_closed_after_admission(self) -> None:
        closed = threading.Event()
        moved = {**TICKET, "position": 1}
        handlers = answer(201, TICKET), stream(moved, ACTIVE, closed=closed)
        with FakeServer(*handlers) as server, UsherClient(server.url, retry=RETRY) as client:
            visit = client.join_queue("demo")
            positions: list[int | None] = []
            ticket = visit.wait_until_active(
                stream=True, on_ticket=lambda it: positions.append(it.get("position"))
            )
            self.assertEqual((ticket, positions), (ACTIVE, [2, 1, None]))
            self.assertEqual(server.requests[1].headers["Queue-Token"], "t1")
            self.assertEqual(visit.token, "t2")
            self.assertTrue(closed.wait(10))

    def test_a_caller_can_stop_the_iteration_of_tickets(self) -> None:
        closed = threading.Event()
        handlers = answer(201, TICKET), stream(TICKET, closed=closed)
        with FakeServer(*handlers) as server, UsherClient(server.url) as client:
            tickets = client.join_queue("demo").tickets(stream=True)
            self.assertEqual([next(tickets), next(tickets)], [TICKET, TICKET])
            del tickets
            self.assertTrue(closed.wait(10))

    def test_a_timeout_ends_a_wait(self) -> None:
        waiting = {**TICKET, "poll_after_ms": 60_000}
        with (
            FakeServer(answer(201, waiting), stream()) as server,
            UsherClient(server.url) as client,
        ):
            visit = client.join_queue("demo")
            for streams in (False, True):
                with self.assertRaises(WaitTimeoutError):
                    visit.wait_until_active(timeout=0.05, stream=streams)

    def test_keys_are_long_and_distinct(self) -> None:
        keys = {new_idempotency_key() for _ in range(1000)}
        self.assertEqual(len(keys), 1000)
        for key in keys:
            self.assertRegex(key, r"^[0-9a-f]{32}$")


class AsyncHttp(unittest.IsolatedAsyncioTestCase):
    async def test_calls_run_while_a_stream_is_open(self) -> None:
        closed = threading.Event()
        handlers = answer(201, TICKET), stream(TICKET, closed=closed), answer(200, {"balance": 5})
        with FakeServer(*handlers) as server:
            async with AsyncUsherClient(server.url, user="42", retry=RETRY) as client:
                visit = await client.join_queue("demo")
                waiting = asyncio.create_task(visit.wait_until_active(stream=True))
                await asyncio.sleep(0.2)
                self.assertEqual(await client.get_wallet(), {"balance": 5})
                self.assertFalse(closed.is_set())
                # A cancelled wait closes its stream.
                waiting.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await waiting
                self.assertTrue(await asyncio.to_thread(closed.wait, 10))

    async def test_a_bearer_function_is_called_for_each_request(self) -> None:
        tokens = iter(["a", "b"])

        async def bearer() -> str:
            return next(tokens)

        with FakeServer(disconnect, answer(200, {"balance": 5})) as server:
            async with AsyncUsherClient(server.url, bearer=bearer, retry=RETRY) as client:
                await client.get_wallet()
            sent = [request.headers["Authorization"] for request in server.requests]
            self.assertEqual(sent, ["Bearer a", "Bearer b"])


@unittest.skipUnless("USHER_URL" in environ, "USHER_URL is not set")
class Live(unittest.IsolatedAsyncioTestCase):
    """Purchases from the concert `demo` of the service at USHER_URL."""

    def test_the_example_buys_two_seats(self) -> None:
        example = Path(__file__).resolve().parents[1] / "examples/buy.py"
        run = subprocess.run(
            [sys.executable, example], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertRegex(run.stdout, r"^bought: \d+,\d+ for \d+\n$", run.stderr)

    def test_the_program_of_the_readme_buys_a_seat(self) -> None:
        readme = Path(__file__).resolve().parents[1] / "README.md"
        program = readme.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
        local = program.replace("http://127.0.0.1:8080", environ["USHER_URL"])
        run = subprocess.run(
            [sys.executable, "-c", local], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertRegex(run.stdout, r"(?m)^confirmed \[", run.stderr)

    async def test_the_async_client_buys_and_cancels(self) -> None:
        async with AsyncUsherClient(environ["USHER_URL"], user=str(uuid.uuid4())) as usher:
            visit = await usher.join_queue("demo")
            await visit.wait_until_active(timeout=60)
            schedule = (await visit.list_schedules("demo"))[0]
            held = await visit.hold_best_seats(schedule["id"], 2)
            await usher.charge_wallet(held["amount"])
            payment = await visit.pay(held["id"])
            self.assertEqual(payment["status"], "confirmed")
            cancelled = await usher.cancel_reservation(held["id"])
            self.assertEqual(cancelled["status"], "cancelled")
            entries = await usher.list_wallet_entries()
            kinds = [entry["kind"] for entry in entries["items"]]
            self.assertEqual(kinds, ["refund", "payment", "charge"])


if __name__ == "__main__":
    unittest.main()
