"""The errors of this client."""

from __future__ import annotations

from typing import Any, TypedDict


class FieldError(TypedDict):
    """A field of the request that the service rejected."""

    field: str
    message: str


class UsherError(Exception):
    """The base class of all errors of this client."""

    @property
    def is_temporary(self) -> bool:
        """Whether the same call may succeed later."""
        return False


class ProblemError(UsherError):
    """The service refused a request (RFC 9457). Branch on `code`, which is stable."""

    def __init__(self, status: int, body: dict[str, Any], retry_after: float | None = None) -> None:
        #: The HTTP status.
        self.status = status
        #: The whole body, with extension members such as `seats` of `seat_taken`.
        self.body = body
        #: Seconds until a retry can succeed, from the Retry-After header.
        self.retry_after = retry_after
        super().__init__(f"{status} {self.code}: {self.detail or body.get('title', 'no detail')}")

    @property
    def is_temporary(self) -> bool:
        return self.status >= 500 or self.status in (408, 425, 429)

    @property
    def code(self) -> str:
        """A stable word such as `seat_taken`, or `unknown` if a proxy responded."""
        return str(self.body.get("code", "unknown"))

    @property
    def detail(self) -> str:
        """A sentence that describes this occurrence."""
        return str(self.body.get("detail", ""))

    @property
    def errors(self) -> list[FieldError]:
        """The rejected fields of a 422 `invalid_request`."""
        errors: list[FieldError] = self.body.get("errors", [])
        return errors


class NetworkError(UsherError):
    """No response arrived, after all retries.

    It is unknown whether the service ran the request.
    """

    @property
    def is_temporary(self) -> bool:
        return True


class WaitTimeoutError(UsherError):
    """The user was not admitted within the timeout. The place in the queue is kept."""
