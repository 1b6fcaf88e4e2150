"""Tests of both adapters against fakes: success, decline, silence, late and double messages, lost
responses. Run: python3 -m unittest discover -s examples/payments"""

import hashlib
import hmac
import json
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fakes import FakeStripe, FakeToss, FakeUsher  # noqa: E402
from stripe_adapter import InvalidSignature, StripeAdapter  # noqa: E402
from toss_adapter import InvalidRedirect, TossAdapter  # noqa: E402
from usher_backend import UsherBackend  # noqa: E402

PAUSE = 0.001
WEBHOOK_SECRET = "whsec_of_the_test"


class AdapterTest(unittest.TestCase):
    def setUp(self):
        self.usher = FakeUsher()
        self.addCleanup(self.usher.close)
        url = self.usher.url
        self.backend = UsherBackend(url, "service-key", url, "admin-key", PAUSE)


class StripeTest(AdapterTest):
    def setUp(self):
        super().setUp()
        self.stripe = FakeStripe()
        self.addCleanup(self.stripe.close)
        url = self.stripe.url
        self.adapter = StripeAdapter(self.backend, "sk_test", WEBHOOK_SECRET, url, PAUSE)
        created = self.adapter.create_intent(self.usher.payment)
        self.intent = self.stripe.intents[created["id"]]

    def send(self, kind, at=None, secret=WEBHOOK_SECRET, amount=10_000):
        intent = {**self.intent, "amount_capturable": amount}
        payload = json.dumps({"type": f"payment_intent.{kind}", "data": {"object": intent}})
        at = str(int(at or time.time()))
        signed = f"{at}.{payload}".encode()
        digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
        self.adapter.handle_webhook(payload.encode(), f"t={at},v1={digest}")

    def authorize(self):
        self.intent["status"] = "requires_capture"

    def test_success_is_confirmed_and_captured_once(self):
        self.assertEqual((self.intent["amount"], self.intent["currency"]), (10_000, "krw"))
        again = self.adapter.create_intent(self.usher.payment)
        self.assertEqual(again["id"], self.intent["id"])
        self.authorize()
        self.send("amount_capturable_updated")
        self.assertEqual((self.usher.status, self.intent["status"]), ("confirmed", "succeeded"))
        # The same webhook again, and a late one after the capture.
        self.send("amount_capturable_updated")
        self.send("amount_capturable_updated", amount=0)
        self.assertEqual(self.usher.reference, self.intent["id"])
        captures = [path for _, path, _ in self.stripe.calls if path.endswith("/capture")]
        self.assertEqual(len(captures), 1)

    def test_late_webhook_releases_the_authorization(self):
        self.usher.status = "voided"
        self.authorize()
        self.send("amount_capturable_updated")
        self.send("amount_capturable_updated")
        self.assertEqual((self.usher.status, self.intent["status"]), ("voided", "canceled"))

    def test_wrong_amount_is_released(self):
        self.authorize()
        self.send("amount_capturable_updated", amount=9_999)
        self.assertEqual((self.usher.status, self.intent["status"]), ("pending", "canceled"))

    def test_decline_voids_and_a_late_decline_does_not(self):
        self.send("payment_failed")
        self.assertEqual(self.usher.status, "voided")
        self.usher.status = "confirmed"
        self.send("canceled")
        self.assertEqual(self.usher.status, "confirmed")

    def test_lost_responses_are_repeated(self):
        self.authorize()
        self.usher.lose_next, self.stripe.lose_next = 2, 2
        self.send("amount_capturable_updated")
        self.assertEqual((self.usher.status, self.intent["status"]), ("confirmed", "succeeded"))

    def test_forged_and_old_webhooks_are_refused(self):
        for wrong in ({"secret": "whsec_of_another"}, {"at": time.time() - 301}):
            with self.assertRaises(InvalidSignature):
                self.send("amount_capturable_updated", **wrong)
        for header in ("", "t=1", "v1=00", "t=x,v1=00"):
            with self.assertRaises(InvalidSignature):
                self.adapter.handle_webhook(b"{}", header)
        self.assertEqual(self.usher.status, "pending")

    def test_refund_is_paid_once(self):
        self.authorize()
        self.send("amount_capturable_updated")
        self.usher.due = 4_000
        # The report is lost once: the job runs again and pays nothing twice.
        self.usher.lose_next = 1
        self.adapter.pay_refunds_due()
        self.adapter.pay_refunds_due()
        self.assertEqual((self.stripe.refunds, self.usher.due), ([4_000], 0))


class TossTest(AdapterTest):
    def setUp(self):
        super().setUp()
        self.toss = FakeToss()
        self.addCleanup(self.toss.close)
        self.adapter = TossAdapter(self.backend, "test_sk", self.toss.url, PAUSE)
        order = self.adapter.order_id(self.usher.payment)
        self.query = {"paymentKey": "key_1", "orderId": order, "amount": "10000"}

    def succeed(self, **changes):
        return self.adapter.handle_success({**self.query, **changes}, self.cancel)

    def cancel(self, order):
        self.assertEqual(order, "p1")
        self.usher.due = 10_000

    def test_success_and_a_second_redirect(self):
        self.assertTrue(self.succeed())
        self.assertTrue(self.succeed())
        self.assertEqual((self.usher.status, self.toss.done), ("confirmed", {"key_1": 10_000}))

    def test_late_redirect_takes_no_money(self):
        self.usher.status = "voided"
        self.assertFalse(self.succeed())
        self.assertEqual(self.toss.done, {})

    def test_changed_amount_takes_no_money(self):
        self.assertFalse(self.succeed(amount="1"))
        self.assertEqual((self.usher.status, self.toss.done), ("pending", {}))
        for wrong in ({"amount": "ten"}, {"amount": ""}):
            with self.assertRaises(InvalidRedirect):
                self.succeed(**wrong)

    def test_second_payment_of_one_order_takes_no_money(self):
        self.assertTrue(self.succeed())
        self.assertFalse(self.succeed(paymentKey="key_2"))
        self.assertEqual(list(self.toss.done), ["key_1"])

    def test_refused_card_gives_the_seats_back(self):
        self.toss.refuses = True
        self.assertFalse(self.succeed())
        self.assertEqual((self.usher.due, self.usher.reported), (0, ["not-taken-p1"]))

    def test_lost_responses_are_repeated(self):
        self.usher.lose_next, self.toss.lose_next = 1, 2
        self.assertTrue(self.succeed())
        self.assertEqual(self.toss.done, {"key_1": 10_000})

    def test_failure_voids(self):
        self.adapter.handle_failure({"orderId": "p1", "code": "PAY_PROCESS_CANCELED"})
        self.assertEqual(self.usher.status, "voided")

    def test_refund_is_paid_once(self):
        self.succeed()
        self.usher.due = 4_000
        self.adapter.pay_refunds_due()
        self.adapter.pay_refunds_due()
        self.assertEqual((self.toss.cancelled, self.usher.due), ([4_000], 0))


if __name__ == "__main__":
    unittest.main()
