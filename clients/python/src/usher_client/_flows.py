"""The logic of all calls, without input and output.

A flow is a generator that yields effects. The sync and the async client run the same flows: they
perform each effect and send its result back into the flow. `_run` in client.py and aio.py are the
two drivers.
"""

from __future__ import annotations

import json
import math
import random
import secrets
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias, TypeVar, cast
from urllib.parse import quote, urlencode

from ._sse import EventParser
from .errors import NetworkError, ProblemError, UsherError, WaitTimeoutError
from .schema import (
    Claim,
    ClaimAttempts,
    Payment,
    PaymentMethod,
    Reservation,
    Reward,
    Ticket,
    Wallet,
)

#: Consecutive failed streams before polling replaces streaming.
MAX_STREAM_FAILURES = 3
#: The service sends a comment every 15 seconds. A longer silence is a dead connection.
STREAM_IDLE_SECONDS = 45.0
PAYMENT_POLL_SECONDS = 0.5
PAYMENT_WAIT_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """Bounds of the retries of one call. A call stops at the first bound that it reaches."""

    #: Number of attempts, including the first one.
    max_attempts: int = 5
    #: Time after which no further attempt starts, in seconds.
    max_elapsed: float = 60.0
    #: Delay before the second attempt, in seconds. It doubles with each attempt.
    base_delay: float = 0.2
    #: Upper bound of the delay, unless the service asks for more, in seconds.
    max_delay: float = 10.0


@dataclass(frozen=True)
class Clock:
    """Time and chance. Tests replace it."""

    #: Seconds on a monotonic clock.
    now: Callable[[], float] = time.monotonic
    #: A number from 0 (inclusive) to 1 (exclusive).
    random: Callable[[], float] = random.random


@dataclass(frozen=True)
class Request:
    """One call of the API. Every call is safe to repeat: see `idempotency_key`."""

    method: str
    path: str
    query: dict[str, str | int | None] = field(default_factory=dict)
    body: object = None
    #: Required for a POST that is not idempotent otherwise. All attempts send the same key.
    idempotency_key: str | None = None
    queue_token: str | None = None
    challenge: str | None = None

    @property
    def target(self) -> str:
        given = {name: value for name, value in self.query.items() if value is not None}
        return f"{self.path}?{urlencode(given)}" if given else self.path

    def headers(self) -> dict[str, str]:
        optional = {
            "Idempotency-Key": self.idempotency_key,
            "Queue-Token": self.queue_token,
            "Usher-Challenge": self.challenge,
        }
        return {name: value for name, value in optional.items() if value is not None}


@dataclass(frozen=True)
class Response:
    status: int
    #: Names are in lower case.
    headers: dict[str, str]
    text: str

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


# Effects


@dataclass(frozen=True)
class Send:
    """Sends one attempt. The result is a Response, or a NetworkError if none arrived."""

    request: Request


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class OpenStream:
    """Opens a stream. The result is that of Send. A success has no text yet.

    The stream stays open during ReadLine and Emit. Every other effect closes it.
    """

    request: Request


@dataclass(frozen=True)
class ReadLine:
    """Reads a line of the stream. The result is a str, None at the end, or a NetworkError."""


@dataclass(frozen=True)
class Emit:
    """Gives a ticket to the caller."""

    ticket: Ticket


Effect: TypeAlias = Send | Sleep | OpenStream | ReadLine | Emit
#: A flow with a result of type T. What it receives depends on the effect.
Flow: TypeAlias = Generator[Effect, Any, T]


def new_idempotency_key() -> str:
    """Makes an idempotency key."""
    return secrets.token_hex(16)


def segment(value: str) -> str:
    """Escapes a path segment."""
    return quote(value, safe="")


def problem_from(response: Response) -> ProblemError:
    body: dict[str, Any] = {}
    try:
        parsed = json.loads(response.text)
        if isinstance(parsed, dict):
            body = parsed
    except ValueError:
        # A proxy answered with its own page.
        pass
    return ProblemError(response.status, body, _retry_after(response))


def _retry_after(response: Response) -> float | None:
    """Retry-After is a number of seconds or a date (RFC 9110, 10.2.3)."""
    header = response.headers.get("retry-after", "").strip()
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True)
class Retrier:
    """Sends requests and retries them."""

    policy: RetryPolicy
    clock: Clock

    def delay(self, error: UsherError, attempt: int) -> float | None:
        """Seconds to wait before the next attempt, or None if the error is final.

        Temporary errors are lost responses, 5xx, and 429 with a Retry-After header.
        """
        # Between half of the backoff and all of it, so that many clients do not retry together.
        backoff = min(self.policy.max_delay, self.policy.base_delay * float(2 ** (attempt - 1)))
        jittered = backoff * (0.5 + self.clock.random() / 2)
        if isinstance(error, NetworkError):
            return jittered
        if not isinstance(error, ProblemError):
            return None
        if error.retry_after is not None and (error.status == 429 or error.status >= 500):
            return max(error.retry_after * (1 + self.clock.random() / 4), jittered)
        return jittered if error.status >= 500 else None

    def is_temporary(self, error: UsherError) -> bool:
        return self.delay(error, 1) is not None

    def send(self, request: Request, on_uncertain: Callable[[], None] = lambda: None) -> Flow[Any]:
        """Returns the parsed body, or None for a response without one.

        `on_uncertain` is called when an attempt may have run without its response arriving.
        """
        start = self.clock.now()
        attempt = 1
        while True:
            outcome: Response | NetworkError = yield Send(request)
            if isinstance(outcome, Response) and outcome.is_success:
                return _parse_body(outcome.text)
            error = outcome if isinstance(outcome, NetworkError) else problem_from(outcome)
            if isinstance(error, NetworkError) or error.status >= 500:
                on_uncertain()
            delay = self.delay(error, attempt)
            elapsed = self.clock.now() - start
            is_last = attempt >= self.policy.max_attempts
            if delay is None or is_last or elapsed + delay > self.policy.max_elapsed:
                raise error
            yield Sleep(delay)
            attempt += 1


def _parse_body(text: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as cause:
        message = "The response is not JSON. Check the address of the service."
        raise UsherError(message) from cause


# Calls of the client


class _Uncertainty:
    """Remembers whether an attempt may have run without its response arriving."""

    def __init__(self) -> None:
        self.is_uncertain = False

    def mark(self) -> None:
        self.is_uncertain = True


def reservation_path(reservation_id: str) -> str:
    return f"/v1/reservations/{segment(reservation_id)}"


def claims_path(code: str) -> str:
    return f"/v1/rewards/{segment(code)}/claims"


def release(retrier: Retrier, reservation_id: str) -> Flow[None]:
    path = reservation_path(reservation_id)
    uncertainty = _Uncertainty()
    try:
        yield from retrier.send(Request("DELETE", path), uncertainty.mark)
    except ProblemError as error:
        # An earlier attempt whose response was lost may have released the hold.
        if error.code != "not_releasable" or not uncertainty.is_uncertain:
            raise
        reservation: Reservation = yield from retrier.send(Request("GET", path))
        if reservation["status"] != "released":
            raise


def claim_reward(retrier: Retrier, code: str) -> Flow[Claim]:
    uncertainty = _Uncertainty()
    try:
        claim: Claim = yield from retrier.send(Request("POST", claims_path(code)), uncertainty.mark)
    except ProblemError as error:
        # An earlier attempt whose response was lost may have made the claim.
        if error.code != "already_claimed" or not uncertainty.is_uncertain:
            raise
        found = yield from _find_claim(retrier, code)
        if found is None:
            raise
        return found
    return claim


def _find_claim(retrier: Retrier, code: str) -> Flow[Claim | None]:
    before: str | None = None
    while True:
        request = Request("GET", f"{claims_path(code)}/mine", query={"before": before})
        page: ClaimAttempts = yield from retrier.send(request)
        for attempt in page["items"]:
            if attempt["status"] != "success":
                continue
            path = f"/v1/rewards/{segment(code)}"
            reward: Reward = yield from retrier.send(Request("GET", path))
            wallet: Wallet = yield from retrier.send(Request("GET", "/v1/wallet"))
            return {
                "id": attempt["id"],
                "code": code,
                "user_id": wallet["user_id"],
                "status": "success",
                "reward": reward["reward"],
                "claimed_at": attempt["claimed_at"],
            }
        before = page.get("next")
        if before is None:
            return None


# Calls of a visit


class VisitState:
    """A user's visit: the queue, the token and the last ticket."""

    def __init__(self, retrier: Retrier, queue_id: str, start: Ticket | str) -> None:
        self.retrier = retrier
        self.queue_id = queue_id
        self.ticket: Ticket | None = None if isinstance(start, str) else start
        self.token: str = start if isinstance(start, str) else start["token"]

    @property
    def path(self) -> str:
        return f"/v1/queues/{segment(self.queue_id)}"

    def send(self, request: Request) -> Flow[Any]:
        return self.retrier.send(replace(request, queue_token=self.token))

    def accept(self, ticket: Ticket) -> Ticket:
        self.ticket = ticket
        self.token = ticket["token"]
        if ticket["status"] != "expired":
            return ticket
        detail = "The place in the queue has expired."
        body = {"code": "queue_token_expired", "status": 410, "detail": detail}
        raise ProblemError(410, body)

    def refresh(self) -> Flow[Ticket]:
        ticket: Ticket = yield from self.send(Request("GET", f"{self.path}/tokens/me"))
        return self.accept(ticket)

    def leave(self) -> Flow[None]:
        try:
            yield from self.send(Request("DELETE", f"{self.path}/tokens/me"))
        except ProblemError as error:
            # The visit was over, or an earlier attempt whose response was lost has ended it.
            if error.code != "queue_token_expired":
                raise

    def tickets(self, stream: bool, max_outage: float, timeout: float | None) -> Flow[None]:
        """Emits tickets until the user is active. Polls no sooner than the service asks for."""
        clock = self.retrier.clock
        deadline = math.inf if timeout is None else clock.now() + timeout
        ticket = self.ticket
        if ticket is None:
            ticket = yield from self.refresh()
        yield Emit(ticket)
        stream_failures = 0 if stream else MAX_STREAM_FAILURES
        last_contact = clock.now()
        retry_after = 0.0
        while ticket["status"] == "waiting":
            if stream_failures < MAX_STREAM_FAILURES:
                has_ticket, delay = yield from self._stream(deadline)
                if has_ticket:
                    stream_failures, last_contact = 0, clock.now()
                else:
                    stream_failures += 1
                assert self.ticket is not None
                ticket = self.ticket
                if ticket["status"] == "waiting":
                    yield from self._sleep(delay, deadline)
                continue
            delay = max(ticket["poll_after_ms"] / 1000, retry_after) * (1 + clock.random() / 10)
            yield from self._sleep(delay, deadline)
            retry_after = 0.0
            try:
                ticket = yield from self.refresh()
            except UsherError as error:
                # A short outage must not end a long wait. The place is safe at the service.
                is_over = clock.now() - last_contact > max_outage
                if is_over or not self.retrier.is_temporary(error):
                    raise
                if isinstance(error, ProblemError):
                    retry_after = error.retry_after or 0.0
                continue
            last_contact = clock.now()
            yield Emit(ticket)

    def _sleep(self, seconds: float, deadline: float) -> Flow[None]:
        left = deadline - self.retrier.clock.now()
        if seconds > left:
            yield Sleep(max(0.0, left))
            raise WaitTimeoutError("The user was not admitted within the timeout.")
        yield Sleep(seconds)

    def _stream(self, deadline: float) -> Flow[tuple[bool, float]]:
        """Emits the tickets of one connection.

        Returns whether there was one, and the delay before the next connection in seconds.
        """
        clock = self.retrier.clock
        parser = EventParser()
        has_ticket = False
        request = Request("GET", f"{self.path}/tokens/me/events", queue_token=self.token)
        outcome: Response | NetworkError = yield OpenStream(request)
        if isinstance(outcome, Response) and outcome.is_success:
            while True:
                line: str | NetworkError | None = yield ReadLine()
                if not isinstance(line, str):
                    break
                event = parser.push(line)
                if event is not None and event.event == "ticket":
                    has_ticket = True
                    ticket = self.accept(cast(Ticket, json.loads(event.data)))
                    yield Emit(ticket)
                    if ticket["status"] == "active":
                        return True, 0.0
                # The service sends a comment every 15 seconds, so that this is checked often.
                if clock.now() > deadline:
                    raise WaitTimeoutError("The user was not admitted within the timeout.")
            delay = (parser.retry_ms or 1000) / 1000
            return has_ticket, delay * (1 + clock.random() / 4)
        error = outcome if isinstance(outcome, NetworkError) else problem_from(outcome)
        error_delay = self.retrier.delay(error, 1)
        if error_delay is None:
            raise error
        return False, max(error_delay, 1.0)

    def change(self, path: str, body: object, idempotency_key: str | None) -> Flow[Any]:
        key = idempotency_key or new_idempotency_key()
        return self.send(Request("POST", path, body=body, idempotency_key=key))

    def pay(self, body: object, idempotency_key: str | None) -> Flow[Payment]:
        clock = self.retrier.clock
        payment: Payment = yield from self.change("/v1/payments", body, idempotency_key)
        deadline = clock.now() + PAYMENT_WAIT_SECONDS
        while payment["status"] == "pending" and clock.now() < deadline:
            yield Sleep(PAYMENT_POLL_SECONDS * (1 + clock.random() / 4))
            path = f"/v1/payments/{segment(payment['id'])}"
            try:
                payment = yield from self.send(Request("GET", path))
            except UsherError as error:
                # The payment goes on without this client. An outage must not hide its result.
                if not self.retrier.is_temporary(error):
                    raise
        return payment


def payment_body(
    reservation_id: str,
    coupon_issue_id: str | None,
    expected_amount: int | None,
    method: PaymentMethod | None = None,
    wallet_amount: int | None = None,
) -> dict[str, object]:
    optional = {
        "coupon_issue_id": coupon_issue_id,
        "expected_amount": expected_amount,
        "method": method,
        "wallet_amount": wallet_amount,
    }
    given = {name: value for name, value in optional.items() if value is not None}
    return {"reservation_id": reservation_id, **given}
