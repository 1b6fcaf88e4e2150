"""Stripe: a PaymentIntent with manual capture, and a webhook with a signature.

The money is authorized when the customer pays, and captured only once Usher has sold the seats. A
payment that comes too late costs a released authorization.

1. `create_intent` after `POST /v1/payments` with the method `external`.
2. The customer pays with Stripe.js.
3. Stripe calls `handle_webhook`, perhaps late or twice.
4. A job calls `pay_refunds_due` every minute.
"""

import hashlib
import hmac
import json
import time
import urllib.parse

from usher_backend import CallError, call

PROVIDER = "stripe"
# Stripe recommends to refuse older signatures, because a recorded request could be sent again.
SIGNATURE_TOLERANCE_SECONDS = 300


class InvalidSignature(Exception):
    """The webhook is not from Stripe. Answer 400."""


class StripeAdapter:
    def __init__(self, usher, secret_key, webhook_secret, url="https://api.stripe.com", pause=0.2):
        self.usher, self.url, self.pause = usher, url, pause
        self.secret_key, self.webhook_secret = secret_key, webhook_secret

    def create_intent(self, payment):
        """The PaymentIntent of a pending payment. The same payment gets the same intent."""
        body = {
            "amount": payment["due_amount"],
            "currency": payment["currency"].lower(),
            "capture_method": "manual",
            "metadata[usher_payment]": payment["id"],
        }
        return self._post("/v1/payment_intents", body, f"{payment['id']} {payment['due_at']}")

    def handle_webhook(self, payload, signature):
        """Handles one event. An exception is answered with 5xx, and Stripe sends it again."""
        self.check_signature(payload, signature)
        event = json.loads(payload)
        intent = event["data"]["object"]
        payment = intent.get("metadata", {}).get("usher_payment")
        if payment is None:
            return
        if event["type"] == "payment_intent.amount_capturable_updated":
            amount = intent["amount_capturable"]
            # A second webhook comes after the capture, when nothing is capturable any more.
            if amount == 0:
                return
            if self.usher.confirm(payment, PROVIDER, intent["id"], amount):
                self._capture(intent["id"])
            else:
                self._cancel(intent["id"])
        elif event["type"] in ("payment_intent.payment_failed", "payment_intent.canceled"):
            self.usher.void(payment, event["type"].removeprefix("payment_intent."))

    def check_signature(self, payload, signature):
        """Checks the header `Stripe-Signature`: `t=<seconds>,v1=<hex>[,v1=<hex>]`."""
        parts = [part.partition("=") for part in signature.split(",")]
        times = [value for name, _, value in parts if name.strip() == "t"]
        if len(times) != 1 or not times[0].isdigit():
            raise InvalidSignature
        if abs(time.time() - int(times[0])) > SIGNATURE_TOLERANCE_SECONDS:
            raise InvalidSignature
        signed = times[0].encode() + b"." + payload
        expected = hmac.new(self.webhook_secret.encode(), signed, hashlib.sha256).hexdigest()
        given = [value for name, _, value in parts if name.strip() == "v1"]
        if not any(hmac.compare_digest(expected, value) for value in given):
            raise InvalidSignature

    def pay_refunds_due(self):
        """Pays back what is due, and reports it. A repetition pays nothing twice."""
        for due in self.usher.refunds_due(PROVIDER):
            amount = due["refund_due_amount"]
            key = f"refund {due['payment_id']} {due['due_since']} {amount}"
            body = {"payment_intent": due["reference"], "amount": amount}
            refund = self._post("/v1/refunds", body, key)
            self.usher.report_refund(due["payment_id"], refund["id"], amount)

    def _capture(self, intent):
        self._end(intent, "capture", "succeeded")

    def _cancel(self, intent):
        self._end(intent, "cancel", "canceled")

    def _end(self, intent, verb, end):
        """An earlier webhook may have ended the intent in the same way."""
        try:
            self._post(f"/v1/payment_intents/{intent}/{verb}", {}, f"{verb} {intent}")
        except CallError as error:
            if error.code != "payment_intent_unexpected_state":
                raise
            headers = {"Authorization": f"Bearer {self.secret_key}"}
            url = f"{self.url}/v1/payment_intents/{intent}"
            if call("GET", url, headers=headers, pause=self.pause)["status"] != end:
                raise

    def _post(self, path, body, key):
        headers = {
            "Authorization": f"Bearer {self.secret_key}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Idempotency-Key": key,
        }
        return call("POST", self.url + path, body, headers, urllib.parse.urlencode, self.pause)
