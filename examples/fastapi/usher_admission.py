"""Middleware for FastAPI and Starlette: lets only users pass whom Usher has admitted.

It stores the user in `request.state.admitted_user`.
"""

import asyncio
import re
import time

import httpx
import jwt
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

TIMEOUT_SECONDS = 2
# Usher publishes a new key two minutes before it signs with it.
KEYS_MAX_AGE_SECONDS = 60
# An unknown key is not looked up more often than this.
KEYS_MIN_AGE_SECONDS = 10

# The first class that matches an error is its reason.
REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "The pass has expired.",
    jwt.InvalidAudienceError: "The pass is for a different queue.",
    jwt.MissingRequiredClaimError: "The claims of the pass are invalid.",
    jwt.InvalidSignatureError: "The signature of the pass is invalid.",
    jwt.InvalidAlgorithmError: "The pass is not signed with EdDSA.",
    jwt.InvalidTokenError: "The pass is malformed.",
}


class AdmissionError(Exception):
    """The answer to a request that may not pass."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail

    def response(self) -> JSONResponse:
        refused = self.status == 401
        return JSONResponse(
            {
                "status": self.status,
                "code": "not_admitted" if refused else "usher_unavailable",
                "detail": self.detail,
            },
            self.status,
            {"WWW-Authenticate": "Bearer"} if refused else {"Retry-After": "3"},
            "application/problem+json",
        )


class AdmissionMiddleware:
    """Checks each request and each WebSocket. A subclass says how."""

    def __init__(self, app: ASGIApp, url: str, queue: str) -> None:
        self.app = app
        self.url = url
        self.queue = queue
        self.client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                user = await self.check(HTTPConnection(scope))
            except AdmissionError as error:
                if scope["type"] == "websocket":
                    return await send({"type": "websocket.close", "code": 1008})
                return await error.response()(scope, receive, send)
            scope.setdefault("state", {})["admitted_user"] = user
        await self.app(scope, receive, send)

    async def check(self, request: HTTPConnection) -> str:
        raise NotImplementedError


class PassMiddleware(AdmissionMiddleware):
    """Requires a pass, and verifies it without a request to Usher."""

    keys: dict[str, jwt.PyJWK] = {}
    fetched_at = -float("inf")
    fetching: asyncio.Task[None] | None = None

    async def check(self, request: HTTPConnection) -> str:
        match = re.fullmatch("Bearer (.+)", request.headers.get("Authorization", ""), re.IGNORECASE)
        if not match:
            raise AdmissionError(401, "The request has no pass.")
        try:
            header = jwt.get_unverified_header(match[1])
            claims = jwt.decode(
                match[1],
                await self.key(header.get("kid", "")),
                # Never accept an algorithm that the token chooses.
                algorithms=["EdDSA"],
                audience=self.queue,
                # Usher's clock may be ahead of this one, so `iat` may be in the future.
                options={"require": ["aud", "exp", "sub"], "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            reasons = (text for kind, text in REASONS.items() if isinstance(error, kind))
            raise AdmissionError(401, next(reasons)) from error
        return str(claims["sub"])

    async def key(self, kid: str) -> jwt.PyJWK:
        age = time.monotonic() - self.fetched_at
        if age > (KEYS_MAX_AGE_SECONDS if kid in self.keys else KEYS_MIN_AGE_SECONDS):
            # Requests that arrive at the same time share one fetch.
            if self.fetching is None or self.fetching.done():
                self.fetching = asyncio.create_task(self.fetch_keys())
            await asyncio.shield(self.fetching)
        if kid not in self.keys:
            raise AdmissionError(401, "The pass is signed with an unknown key.")
        return self.keys[kid]

    async def fetch_keys(self) -> None:
        try:
            response = await self.client.get(f"{self.url}/.well-known/jwks.json")
            response.raise_for_status()
            key_set = jwt.PyJWKSet.from_dict(response.json())
        except (httpx.HTTPError, jwt.PyJWTError, ValueError) as error:
            raise AdmissionError(503, "The keys of Usher are not available.") from error
        self.keys = {str(key.key_id): key for key in key_set.keys}
        self.fetched_at = time.monotonic()


class QueueTokenMiddleware(AdmissionMiddleware):
    """Requires a queue token, and asks Usher whether its user is active now.

    The token is in the header `Queue-Token` or in the cookie of the waiting page.
    """

    async def check(self, request: HTTPConnection) -> str:
        cookie = request.cookies.get(f"usher-{self.queue}")
        token = request.headers.get("Queue-Token", cookie)
        if not token:
            raise AdmissionError(401, "The request has no queue token.")
        address = f"{self.url}/v1/queues/{self.queue}/check"
        # Bytes, because httpx refuses text outside of ASCII.
        sent = {b"Queue-Token": token.encode("latin-1")}
        try:
            response = await self.client.get(address, headers=sent)
        except httpx.HTTPError as error:
            raise AdmissionError(503, "Usher did not answer the check.") from error
        if response.status_code == 204 and "Usher-User" in response.headers:
            return response.headers["Usher-User"]
        if response.status_code == 401:
            raise AdmissionError(401, "The user is not admitted.")
        raise AdmissionError(503, "Usher did not answer the check.")
