"""Checks messages that a webhook of Usher sends."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import importlib
import json
import time
from collections.abc import Mapping
from typing import Any, TypedDict, cast

from .errors import UsherError


class WebhookError(UsherError):
    """A message that an endpoint received is not from Usher, or it is too old."""


class WebhookEvent(TypedDict):
    """An event, as `GET /admin/events` lists it and a webhook sends it."""

    id: str
    type: str
    timestamp: str
    data: dict[str, Any]


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    key: str,
    *,
    tolerance_seconds: float = 300,
    now: float | None = None,
) -> WebhookEvent:
    """Checks the signature and the time of a message and returns its event.

    `body` is the body exactly as it was received. `key` is the secret (`whsec_…`) or the public key
    (`whpk_…`) of the webhook. A public key needs the package `cryptography`. `now` is in seconds
    since 1970; the default is the clock of this machine.

    Raises `WebhookError` if the message must not be trusted.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if not lower.get(name):
            raise WebhookError(f"{name} is missing")
    timestamp = lower["webhook-timestamp"]
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise WebhookError("webhook-timestamp is not a time")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance_seconds:
        raise WebhookError("the message is too old or from the future")
    content = f"{lower['webhook-id']}.{timestamp}.".encode() + body
    signatures = lower["webhook-signature"].split(" ")
    if not _is_signed(content, signatures, key):
        raise WebhookError("no signature is that of the key")
    return cast(WebhookEvent, json.loads(body))


def _is_signed(content: bytes, signatures: list[str], key: str) -> bool:
    if key.startswith("whsec_"):
        secret = _decode(key.removeprefix("whsec_"))
        if secret is None:
            raise WebhookError("the key is not Base64 after its prefix")
        expected = hmac.new(secret, content, hashlib.sha256).digest()
        found = [_decode(it.removeprefix("v1,")) for it in signatures if it.startswith("v1,")]
        return any(it is not None and hmac.compare_digest(it, expected) for it in found)
    if not key.startswith("whpk_"):
        raise WebhookError("the key must begin with whsec_ or whpk_")
    public = _decode(key.removeprefix("whpk_"))
    if public is None or len(public) != 32:
        raise WebhookError("the key is not an Ed25519 key in Base64 after its prefix")
    ed25519 = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    invalid = importlib.import_module("cryptography.exceptions").InvalidSignature
    verifier = ed25519.Ed25519PublicKey.from_public_bytes(public)
    for signature in signatures:
        value = _decode(signature.removeprefix("v1a,")) if signature.startswith("v1a,") else None
        if value is None:
            continue
        try:
            verifier.verify(value, content)
        except invalid:
            continue
        return True
    return False


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
