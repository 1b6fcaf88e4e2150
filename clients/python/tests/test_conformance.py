"""Runs the exchanges of tests/vectors/client.json, which all clients share, against this client."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import unittest
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from usher_client import (
    AsyncQueueVisit,
    AsyncUsherClient,
    Clock,
    NetworkError,
    ProblemError,
    QueueVisit,
    RetryPolicy,
    UsherClient,
    UsherError,
)

VECTORS = Path(__file__).resolve().parents[3] / "tests/vectors/client.json"
DOCUMENT = json.loads(VECTORS.read_text(encoding="utf-8"))
VALUES: dict[str, Any] = DOCUMENT["values"]
URL = "http://usher.example/"


def expand(node: Any) -> Any:
    """Replaces "$name" by the value of that name, and inside the text of a stream by its JSON."""
    if isinstance(node, list):
        return [expand(item) for item in node]
    if isinstance(node, dict):
        return {key: expand(value) for key, value in node.items()}
    if not isinstance(node, str):
        return node
    if node.removeprefix("$") in VALUES and node.startswith("$"):
        return VALUES[node[1:]]

    def value_or_text(match: re.Match[str]) -> str:
        name = match[1]
        return json.dumps(VALUES[name]) if name in VALUES else match[0]

    return re.sub(r"\$([a-z_]+)", value_or_text, node)


def snake_case(name: str) -> str:
    return re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), name)


def python_options(options: dict[str, Any]) -> dict[str, Any]:
    """Translates options of a vector: other case, and seconds instead of milliseconds."""
    translated = {}
    for name, value in options.items():
        if name.endswith("Ms"):
            name, value = name.removesuffix("Ms"), value / 1000
        translated[snake_case(name)] = value
    return translated


class FakeService(unittest.TestCase):
    """A service that knows one list of exchanges, and the time that passes in them."""

    def start(self, exchanges: list[dict[str, Any]]) -> None:
        self.exchanges = list(exchanges)
        self.keys: dict[str, str] = {}
        self.now = 0.0
        self.sleeps: list[float] = []
        self.clock = Clock(now=lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds * 1000)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def answer(self, request: httpx.Request, is_async: bool) -> httpx.Response:
        self.assertTrue(self.exchanges, f"unexpected request: {request.method} {request.url}")
        exchange = self.exchanges.pop(0)
        self.check_request(exchange["request"], request)
        response = exchange["response"]
        if response == "lost":
            raise httpx.ConnectError("connection refused", request=request)
        headers = {"content-type": "application/json", **response.get("headers", {})}
        content: Any = response.get("text", json.dumps(response.get("body")))
        if response["status"] == 204:
            content = ""
        if "stream" in response:
            chunks = [text.encode() for text in response["stream"]]
            content = chunks_async(chunks) if is_async else iter(chunks)
        return httpx.Response(response["status"], headers=headers, content=content)

    def check_request(self, expected: dict[str, Any], request: httpx.Request) -> None:
        target = request.url.raw_path.decode()
        self.assertEqual(f"{request.method} {target}", f"{expected['method']} {expected['path']}")
        for name, value in expected.get("headers", {}).items():
            if isinstance(value, str) and value.startswith("$key"):
                self.check_key(value, request.headers.get(name))
            else:
                self.assertEqual(request.headers.get(name), value, name)
        body = json.loads(request.content) if request.content else None
        self.assertEqual(body, expected.get("body"))
        if body is not None:
            self.assertEqual(request.headers["content-type"], "application/json")

    def check_key(self, name: str, key: str | None) -> None:
        """The first use of a name binds it to the key. Different names are different keys."""
        self.assertRegex(key or "", r"^[!-~]{16,128}$", "the key is missing or easy to guess")
        assert key is not None
        if name not in self.keys:
            self.assertNotIn(key, self.keys.values(), "a key is used twice")
            self.keys[name] = key
        self.assertEqual(key, self.keys[name], "a retry has another key")

    def finish(self, expected: list[list[float]]) -> None:
        self.assertEqual(self.exchanges, [], "requests are missing")
        self.assertEqual(len(self.sleeps), len(expected), f"{self.sleeps} {expected}")
        for actual, (low, high) in zip(self.sleeps, expected, strict=True):
            self.assertTrue(low - 0.001 <= actual <= high + 0.001, f"{self.sleeps} {expected}")

    def check_error(self, error: UsherError | None, expected: dict[str, Any]) -> None:
        if expected["type"] == "network":
            self.assertIsInstance(error, NetworkError)
            return
        assert isinstance(error, ProblemError), repr(error)
        for name in ("status", "code", "detail", "errors", "retry_after"):
            self.assertEqual(getattr(error, name), expected[name], name)
        for name, value in expected.get("members", {}).items():
            self.assertEqual(error.body[name], value)


async def chunks_async(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def client_options(case: dict[str, Any]) -> dict[str, Any]:
    options = {"user": "42", **python_options(case.get("client", {}))}
    if "retry" in options:
        options["retry"] = RetryPolicy(**python_options(options["retry"]))
    return options


def target_of(client: object, visit: object, operation: str) -> Any:
    name = snake_case(operation)
    return getattr(client if hasattr(client, name) else visit, name)


class Conformance(FakeService):
    def run_sync(self, case: dict[str, Any]) -> None:
        transport = httpx.MockTransport(lambda request: self.answer(request, False))
        with httpx.Client(transport=transport) as http:
            options = client_options(case)
            client = UsherClient(URL, http=http, clock=self.clock, sleep=self.sleep, **options)
            visit: QueueVisit | None = None
            for call in case["calls"]:
                method = target_of(client, visit, call["operation"])
                arguments = call["args"], python_options(call.get("options", {}))
                if "error" in call:
                    with self.assertRaises(UsherError) as caught:
                        method(*arguments[0], **arguments[1])
                    self.check_error(caught.exception, call["error"])
                    continue
                value = method(*arguments[0], **arguments[1])
                if isinstance(value, QueueVisit):
                    visit = value
                    value = visit.ticket
                if "result" in call:
                    self.assertEqual(value, call["result"])

    async def run_async(self, case: dict[str, Any]) -> None:
        async def answer(request: httpx.Request) -> httpx.Response:
            return self.answer(request, True)

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            options = client_options(case)
            client = AsyncUsherClient(
                URL, http=http, clock=self.clock, sleep=self.sleep_async, **options
            )
            visit: AsyncQueueVisit | None = None
            for call in case["calls"]:
                method = target_of(client, visit, call["operation"])
                error: UsherError | None = None
                try:
                    value = method(*call["args"], **python_options(call.get("options", {})))
                    value = await value if inspect.isawaitable(value) else value
                except UsherError as caught:
                    error = caught
                if "error" in call:
                    self.check_error(error, call["error"])
                    continue
                if error is not None:
                    raise error
                if isinstance(value, AsyncQueueVisit):
                    visit = value
                    value = visit.ticket
                if "result" in call:
                    self.assertEqual(value, call["result"])


def add_tests(number: int, case: dict[str, Any]) -> None:
    """Adds one test of each client for a case."""

    def test_sync(self: Conformance) -> None:
        self.start(case["exchanges"])
        self.run_sync(case)
        self.finish(case["sleeps"])

    def test_async(self: Conformance) -> None:
        self.start(case["exchanges"])
        asyncio.run(self.run_async(case))
        self.finish(case["sleeps"])

    name = f"{number:03}_{re.sub('[^a-z0-9]+', '_', case['name'].lower())}"
    for kind, test in (("sync", test_sync), ("async", test_async)):
        test.__doc__ = f"{case['name']} ({kind})"
        setattr(Conformance, f"test_{name}_{kind}", test)


for number, case in enumerate(DOCUMENT["cases"], 1):
    add_tests(number, expand(case))


if __name__ == "__main__":
    unittest.main()
