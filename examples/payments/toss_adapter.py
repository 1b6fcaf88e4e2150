"""Toss Payments: the merchant's server confirms the payment.

Toss takes no money before the merchant's server confirms. The seats are sold first, because Usher
answers whether the payment is in time. If Toss then refuses, the reservation is cancelled.

1. The page opens the payment window with the `order_id` of this adapter and `due_amount`.
2. Toss redirects to the success address with `paymentKey`, `orderId` and `amount`, perhaps late or
   twice: `handle_success`. The fail address calls `handle_failure`.
3. A job calls `pay_refunds_due` every minute.
"""

import base64
import json

from usher_backend import CallError, call

PROVIDER = "toss"


class InvalidRedirect(Exception):
    """The customer has changed the address. Answer 400."""


class TossAdapter:
    def __init__(self, usher, secret_key, url="https://api.tosspayments.com", pause=0.2):
        self.usher, self.url, self.pause = usher, url, pause
        basic = base64.b64encode(f"{secret_key}:".encode()).decode()
        self.headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}

    @staticmethod
    def order_id(payment):
        """Usher's id of the payment, so that every message of Toss names it."""
        return payment["id"]

    def handle_success(self, query, cancel_reservation):
        """The redirect after the customer has approved the payment. True: the seats are bought.

        Nothing is taken before Toss is called, so the amount in the address is only compared: Usher
        refuses any other than the one that is due. `cancel_reservation` cancels the reservation of a
        payment when Toss refuses after the seats were sold.
        """
        try:
            key, order, amount = query["paymentKey"], query["orderId"], int(query["amount"])
        except (KeyError, ValueError):
            raise InvalidRedirect from None
        if not self.usher.confirm(order, PROVIDER, key, amount):
            # Toss releases a payment that is not confirmed within ten minutes.
            return False
        body = {"paymentKey": key, "orderId": order, "amount": amount}
        try:
            self._post("/v1/payments/confirm", body, f"confirm-{order}-{key}")
        except CallError as error:
            # A second redirect, or a repetition after a lost response.
            if error.code == "ALREADY_PROCESSED_PAYMENT":
                return True
            if error.status >= 500:
                raise
            cancel_reservation(order)
            # No money was taken, so none is paid back.
            self.report_untaken(order)
            return False
        return True

    def handle_failure(self, query):
        """The redirect after the customer has closed the window or the card was declined."""
        code = "".join(c for c in query.get("code", "failed").lower() if c.isalnum() or c == "_")
        self.usher.void(query["orderId"], code[:64] or "failed")

    def report_untaken(self, order):
        """Reports what the cancellation left due as settled."""
        for due in self.usher.refunds_due(PROVIDER):
            if due["payment_id"] == order:
                amount = due["refund_due_amount"]
                self.usher.report_refund(order, f"not-taken-{order}", amount)

    def pay_refunds_due(self):
        """Pays back what is due, and reports it. A repetition pays nothing twice."""
        for due in self.usher.refunds_due(PROVIDER):
            amount = due["refund_due_amount"]
            key = f"refund-{due['payment_id']}-{due['due_since']}-{amount}"
            body = {"cancelReason": "cancelled seats", "cancelAmount": amount}
            cancelled = self._post(f"/v1/payments/{due['reference']}/cancel", body, key)
            reference = cancelled["cancels"][-1]["transactionKey"]
            self.usher.report_refund(due["payment_id"], reference, amount)

    def _post(self, path, body, key):
        headers = {**self.headers, "Idempotency-Key": key}
        return call("POST", self.url + path, body, headers, json.dumps, self.pause)
