"""Typed client for Usher, an admission and booking service."""

from ._flows import Clock, RetryPolicy, new_idempotency_key
from .aio import AsyncBearer, AsyncQueueVisit, AsyncUsherClient, paginate_async
from .client import Bearer, Page, QueueVisit, UsherClient, paginate
from .errors import FieldError, NetworkError, ProblemError, UsherError, WaitTimeoutError
from .line import LineDocument, LineLane, position_from_line
from .webhook import WebhookError, WebhookEvent, verify_webhook

__all__ = [
    "AsyncBearer",
    "AsyncQueueVisit",
    "AsyncUsherClient",
    "Bearer",
    "Clock",
    "FieldError",
    "LineDocument",
    "LineLane",
    "NetworkError",
    "Page",
    "ProblemError",
    "QueueVisit",
    "RetryPolicy",
    "UsherClient",
    "UsherError",
    "WaitTimeoutError",
    "WebhookError",
    "WebhookEvent",
    "new_idempotency_key",
    "paginate",
    "paginate_async",
    "position_from_line",
    "verify_webhook",
]
