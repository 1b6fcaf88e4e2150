"""The async client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, Self, TypeAlias, TypeVar, cast

import httpx

from . import _flows
from ._flows import (
    STREAM_IDLE_SECONDS,
    Clock,
    Effect,
    Emit,
    Flow,
    OpenStream,
    ReadLine,
    Request,
    Response,
    Retrier,
    RetryPolicy,
    Send,
    Sleep,
    VisitState,
    segment,
)
from .client import Page, _network_error, _response
from .errors import NetworkError
from .schema import (
    Claim,
    ClaimAttempt,
    Concert,
    Coupon,
    CouponIssue,
    Payment,
    PaymentMethod,
    Queue,
    Reservation,
    Reward,
    Schedule,
    SeatMap,
    SeatStatus,
    Ticket,
    Wallet,
    WalletEntry,
)

T = TypeVar("T")

#: A bearer token, or a function that returns it.
AsyncBearer: TypeAlias = str | Callable[[], str | Awaitable[str]]


class _AsyncDriver:
    """Performs the effects of flows."""

    def __init__(
        self,
        url: str,
        http: httpx.AsyncClient,
        user: str | None,
        bearer: AsyncBearer | None,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._url = url.rstrip("/")
        self._http = http
        self._user = user
        self._bearer = bearer
        self._sleep = sleep

    async def run(self, flow: Flow[T]) -> T:
        result: object = None
        while True:
            try:
                effect = flow.send(result)
            except StopIteration as end:
                return cast(T, end.value)
            result = await self._perform(effect)

    async def iterate(self, flow: Flow[None]) -> AsyncIterator[Ticket]:
        """Yields the tickets that a flow emits."""
        stream = _AsyncStream(self._http)
        result: object = None
        try:
            while True:
                try:
                    effect = flow.send(result)
                except StopIteration:
                    return
                if isinstance(effect, Emit):
                    yield effect.ticket
                    result = None
                elif isinstance(effect, ReadLine):
                    result = await stream.read_line()
                else:
                    await stream.close()
                    if isinstance(effect, OpenStream):
                        result = await stream.open(await self._build(effect.request))
                    else:
                        result = await self._perform(effect)
        finally:
            # Closes the connection also when the caller stops early.
            flow.close()
            await stream.close()

    async def _perform(self, effect: Effect) -> object:
        if isinstance(effect, Sleep):
            await self._sleep(effect.seconds)
            return None
        if isinstance(effect, Send):
            return await self._send(effect.request)
        raise TypeError(f"{effect!r} is not possible here")

    async def _bearer_token(self) -> str:
        assert self._bearer is not None
        if isinstance(self._bearer, str):
            return self._bearer
        token = self._bearer()
        return await token if isawaitable(token) else token

    async def _build(self, request: Request) -> httpx.Request:
        headers = {"Accept": "application/json", **request.headers()}
        if self._user is not None:
            headers["Usher-User"] = self._user
        if self._bearer is not None:
            token = await self._bearer_token()
            headers["Authorization"] = f"Bearer {token}"
        content = None
        if request.body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(request.body)
        url = self._url + request.target
        return self._http.build_request(request.method, url, headers=headers, content=content)

    async def _send(self, request: Request) -> Response | NetworkError:
        built = await self._build(request)
        try:
            response = await self._http.send(built)
        except httpx.UnsupportedProtocol:
            raise
        except httpx.RequestError as cause:
            return _network_error(cause)
        return _response(response, response.text)


class _AsyncStream:
    """A stream that is open or not."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._lines: AsyncIterator[str] | None = None

    async def open(self, request: httpx.Request) -> Response | NetworkError:
        request.extensions["timeout"]["read"] = STREAM_IDLE_SECONDS
        try:
            response = await self._http.send(request, stream=True)
            self._response = response
            if response.is_success:
                self._lines = response.aiter_lines()
                return _response(response, "")
            await response.aread()
        except httpx.UnsupportedProtocol:
            raise
        except httpx.RequestError as cause:
            return _network_error(cause)
        return _response(response, response.text)

    async def read_line(self) -> str | NetworkError | None:
        assert self._lines is not None, "no stream is open"
        try:
            return await anext(self._lines, None)
        except httpx.RequestError as cause:
            return _network_error(cause)

    async def close(self) -> None:
        response, self._response, self._lines = self._response, None, None
        if response is not None:
            await response.aclose()


class AsyncQueueVisit:
    """A user's visit: the place in a queue and, once active, access to the seats.

    Use `AsyncUsherClient.join_queue` or `AsyncUsherClient.resume_queue`.
    """

    def __init__(self, driver: _AsyncDriver, state: VisitState) -> None:
        self._driver = driver
        self._state = state

    @property
    def queue_id(self) -> str:
        return self._state.queue_id

    @property
    def token(self) -> str:
        """Proves the place in the queue. Store it to resume the visit later."""
        return self._state.token

    @property
    def ticket(self) -> Ticket | None:
        """The last ticket that arrived, or None before the first one of a resumed visit."""
        return self._state.ticket

    async def refresh(self) -> Ticket:
        """Fetches the ticket. Fails with `queue_token_expired` if the visit has ended."""
        return await self._driver.run(self._state.refresh())

    def tickets(
        self,
        *,
        stream: bool = False,
        max_outage: float = 300.0,
        timeout: float | None = None,
    ) -> AsyncIterator[Ticket]:
        """Yields tickets until the user is active. Polls no sooner than the service asks for.

        `stream` receives updates by server-sent events. Polling is the fallback.
        `max_outage` is how long the service may be unreachable before waiting fails, in seconds.
        `timeout` bounds the wait in seconds and ends it with a WaitTimeoutError.
        """
        return self._driver.iterate(self._state.tickets(stream, max_outage, timeout))

    async def wait_until_active(
        self,
        *,
        on_ticket: Callable[[Ticket], object] | None = None,
        stream: bool = False,
        max_outage: float = 300.0,
        timeout: float | None = None,
    ) -> Ticket:
        """Waits for admission and returns the active ticket. The options are those of `tickets`.

        Fails with a ProblemError with the code `queue_token_expired` if the place is lost.
        """
        tickets = self.tickets(stream=stream, max_outage=max_outage, timeout=timeout)
        async for ticket in tickets:
            if on_ticket is not None:
                on_ticket(ticket)
        return ticket

    async def leave(self) -> None:
        """Gives up the place or ends the visit."""
        await self._driver.run(self._state.leave())

    async def list_schedules(self, concert_id: str) -> list[Schedule]:
        """The bookable schedules (dates) of a concert."""
        path = f"/v1/concerts/{segment(concert_id)}/schedules"
        schedules: list[Schedule] = (await self._get(path))["items"]
        return schedules

    async def list_seats(self, schedule_id: str, *, status: SeatStatus | None = None) -> SeatMap:
        """The seats of a schedule, in the order of their numbers."""
        path = f"/v1/schedules/{segment(schedule_id)}/seats"
        seats: SeatMap = await self._get(path, {"status": status})
        return seats

    async def hold_seats(
        self, schedule_id: str, seats: Sequence[int], *, idempotency_key: str | None = None
    ) -> Reservation:
        """Holds all of these seats, or none of them."""
        body = {"schedule_id": schedule_id, "seats": list(seats)}
        held: Reservation = await self._change("/v1/reservations", body, idempotency_key)
        return held

    async def hold_best_seats(
        self,
        schedule_id: str,
        quantity: int,
        *,
        section: str | None = None,
        idempotency_key: str | None = None,
    ) -> Reservation:
        """Holds the best adjacent seats."""
        body: dict[str, object] = {"schedule_id": schedule_id, "quantity": quantity}
        if section is not None:
            body["section"] = section
        held: Reservation = await self._change("/v1/reservations/best", body, idempotency_key)
        return held

    async def create_payment(
        self,
        reservation_id: str,
        *,
        coupon_issue_id: str | None = None,
        expected_amount: int | None = None,
        method: PaymentMethod | None = None,
        wallet_amount: int | None = None,
        idempotency_key: str | None = None,
    ) -> Payment:
        """Starts the payment of a held reservation. The payment can be `pending`.

        With the method `external` it stays pending until the booking backend confirms it.
        `wallet_amount` is the part of it that the wallet pays.
        """
        body = _flows.payment_body(
            reservation_id, coupon_issue_id, expected_amount, method, wallet_amount
        )
        payment: Payment = await self._change("/v1/payments", body, idempotency_key)
        return payment

    async def pay(
        self,
        reservation_id: str,
        *,
        coupon_issue_id: str | None = None,
        expected_amount: int | None = None,
        idempotency_key: str | None = None,
    ) -> Payment:
        """Pays for a held reservation and waits up to a minute for the result.

        Check `status`: only `confirmed` means that the seats are sold to the user. The payment
        fails with `amount_changed` if the amount due is not `expected_amount`.
        """
        body = _flows.payment_body(reservation_id, coupon_issue_id, expected_amount)
        return await self._driver.run(self._state.pay(body, idempotency_key))

    async def _get(self, path: str, query: dict[str, str | int | None] | None = None) -> Any:
        request = Request("GET", path, query=query or {})
        return await self._driver.run(self._state.send(request))

    async def _change(self, path: str, body: object, idempotency_key: str | None) -> Any:
        return await self._driver.run(self._state.change(path, body, idempotency_key))


class AsyncUsherClient:
    """Calls the public API of Usher for one user.

    Every call is retried after a lost response, 5xx, and 429 with Retry-After, within the bounds
    of the RetryPolicy. The retries are safe: each change has an idempotency key that is made
    before the first attempt. To repeat a change after a restart, store your own key before the
    call and pass it as `idempotency_key`.

    `user` is for services that identify users by the `Usher-User` header. `bearer` is a JWT of
    the user, or a service key. A function is called for each request. `timeout` is the time that
    one attempt may take, in seconds. `http` replaces the HTTP client, and its timeout applies.
    `clock` and `sleep` replace time and chance in tests.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        bearer: AsyncBearer | None = None,
        timeout: float = 15.0,
        retry: RetryPolicy | None = None,
        http: httpx.AsyncClient | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._owns_http = http is None
        self._http = http or httpx.AsyncClient(timeout=timeout)
        self._driver = _AsyncDriver(url, self._http, user, bearer, sleep)
        self._retrier = Retrier(retry or RetryPolicy(), clock or Clock())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._owns_http:
            await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | int | None] | None = None,
        body: object = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Sends a call that has no method here.

        Give a POST that is to run once an idempotency key.
        """
        call = Request(method, path, query or {}, body, idempotency_key)
        return await self._send(call)

    # Queues

    async def get_queue(self, queue_id: str) -> Queue:
        queue: Queue = await self._get(f"/v1/queues/{segment(queue_id)}")
        return queue

    async def join_queue(self, queue_id: str, *, challenge: str | None = None) -> AsyncQueueVisit:
        """Joins a queue. A user who is in the queue already keeps the place."""
        path = f"/v1/queues/{segment(queue_id)}/tokens"
        ticket: Ticket = await self._send(Request("POST", path, challenge=challenge))
        return AsyncQueueVisit(self._driver, VisitState(self._retrier, queue_id, ticket))

    def resume_queue(self, queue_id: str, token: str) -> AsyncQueueVisit:
        """Resumes a visit with a stored token. The first call of the visit checks the token."""
        return AsyncQueueVisit(self._driver, VisitState(self._retrier, queue_id, token))

    # Concerts

    async def list_concerts(self) -> list[Concert]:
        concerts: list[Concert] = (await self._get("/v1/concerts"))["items"]
        return concerts

    async def get_concert(self, concert_id: str) -> Concert:
        concert: Concert = await self._get(f"/v1/concerts/{segment(concert_id)}")
        return concert

    # Reservations and payments

    async def list_reservations(
        self, *, limit: int | None = None, before: str | None = None
    ) -> Page[Reservation]:
        page: Page[Reservation] = await self._list("/v1/reservations/mine", limit, before)
        return page

    async def get_reservation(self, reservation_id: str) -> Reservation:
        path = _flows.reservation_path(reservation_id)
        reservation: Reservation = await self._get(path)
        return reservation

    async def release_reservation(self, reservation_id: str) -> None:
        """Releases a hold."""
        await self._driver.run(_flows.release(self._retrier, reservation_id))

    async def cancel_reservation(
        self,
        reservation_id: str,
        *,
        seats: Sequence[int] | None = None,
        idempotency_key: str | None = None,
    ) -> Reservation:
        """Cancels a confirmed reservation and refunds it. `seats` limits it to some seats."""
        path = f"{_flows.reservation_path(reservation_id)}/cancel"
        body = None if seats is None else {"seats": list(seats)}
        cancelled: Reservation = await self._change(path, body, idempotency_key)
        return cancelled

    async def list_payments(
        self, *, limit: int | None = None, before: str | None = None
    ) -> Page[Payment]:
        page: Page[Payment] = await self._list("/v1/payments", limit, before)
        return page

    async def get_payment(self, payment_id: str) -> Payment:
        payment: Payment = await self._get(f"/v1/payments/{segment(payment_id)}")
        return payment

    async def confirm_payment(
        self, payment_id: str, *, provider: str, reference: str, amount: int
    ) -> Payment:
        """Confirms that the provider has taken the money of an external payment.

        Needs a service key as `bearer`. The same call again gets the same payment.
        """
        body = {"provider": provider, "reference": reference, "amount": amount}
        return await self._report(payment_id, "confirm", body)

    async def void_payment(self, payment_id: str, *, reason: str | None = None) -> Payment:
        """Voids an external payment that waits for its provider."""
        return await self._report(payment_id, "void", {} if reason is None else {"reason": reason})

    async def report_refund(self, payment_id: str, *, reference: str, amount: int) -> Payment:
        """Reports that the provider has paid money back. Needs a service key as `bearer`."""
        body = {"reference": reference, "amount": amount}
        return await self._report(payment_id, "refunded", body)

    async def _report(self, payment_id: str, verb: str, body: object) -> Payment:
        # The service runs a repeated call once, so it needs no idempotency key.
        path = f"/v1/payments/{segment(payment_id)}/{verb}"
        payment: Payment = await self._send(Request("POST", path, body=body))
        return payment

    # Wallet

    async def get_wallet(self) -> Wallet:
        wallet: Wallet = await self._get("/v1/wallet")
        return wallet

    async def list_wallet_entries(
        self, *, limit: int | None = None, before: str | None = None
    ) -> Page[WalletEntry]:
        page: Page[WalletEntry] = await self._list("/v1/wallet/entries", limit, before)
        return page

    async def charge_wallet(
        self, amount: int, *, idempotency_key: str | None = None
    ) -> WalletEntry:
        """Adds an amount, in the minor unit of the currency."""
        path, body = "/v1/wallet/charges", {"amount": amount}
        entry: WalletEntry = await self._change(path, body, idempotency_key)
        return entry

    async def use_wallet(self, amount: int, *, idempotency_key: str | None = None) -> WalletEntry:
        """Takes an amount."""
        path, body = "/v1/wallet/uses", {"amount": amount}
        entry: WalletEntry = await self._change(path, body, idempotency_key)
        return entry

    # Coupons

    async def get_coupon(self, coupon_id: str) -> Coupon:
        coupon: Coupon = await self._get(f"/v1/coupons/{segment(coupon_id)}")
        return coupon

    async def issue_coupon(self, coupon_id: str) -> CouponIssue:
        """Issues a coupon to the user, or returns the issue that the user has."""
        path = f"/v1/coupons/{segment(coupon_id)}/issues"
        issue: CouponIssue = await self._send(Request("POST", path))
        return issue

    async def list_coupon_issues(
        self, *, limit: int | None = None, before: str | None = None
    ) -> Page[CouponIssue]:
        page: Page[CouponIssue] = await self._list("/v1/coupons/issues/mine", limit, before)
        return page

    # Rewards

    async def get_reward(self, code: str) -> Reward:
        reward: Reward = await self._get(f"/v1/rewards/{segment(code)}")
        return reward

    async def claim_reward(self, code: str) -> Claim:
        """Claims a reward. Each user can claim it once."""
        return await self._driver.run(_flows.claim_reward(self._retrier, code))

    async def list_reward_claims(
        self, code: str, *, limit: int | None = None, before: str | None = None
    ) -> Page[ClaimAttempt]:
        path = f"{_flows.claims_path(code)}/mine"
        page: Page[ClaimAttempt] = await self._list(path, limit, before)
        return page

    async def _send(self, request: Request) -> Any:
        return await self._driver.run(self._retrier.send(request))

    async def _get(self, path: str) -> Any:
        return await self._send(Request("GET", path))

    async def _list(self, path: str, limit: int | None, before: str | None) -> Any:
        query: dict[str, str | int | None] = {"limit": limit, "before": before}
        return await self._send(Request("GET", path, query=query))

    async def _change(self, path: str, body: object, idempotency_key: str | None) -> Any:
        key = idempotency_key or _flows.new_idempotency_key()
        return await self._send(Request("POST", path, body=body, idempotency_key=key))


async def paginate_async(
    fetch_page: Callable[[str | None], Awaitable[Page[T]]],
) -> AsyncIterator[T]:
    """Yields the items of all pages.

    `paginate_async(lambda before: client.list_reservations(before=before))`
    """
    before: str | None = None
    while True:
        page = await fetch_page(before)
        for item in page["items"]:
            yield item
        before = page.get("next")
        if before is None:
            return
