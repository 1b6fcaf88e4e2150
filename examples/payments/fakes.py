"""Fakes of Usher, Stripe and Toss Payments for the tests: HTTP servers with the calls that the
adapters make, and with switches for what goes wrong."""

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer:
    """Answers requests with `self.answer(method, path, body)` → (status, body)."""

    def __init__(self):
        self.calls, self.keys, self.lose_next = [], {}, 0
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self):
                text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                is_form = "form" in self.headers.get("Content-Type", "")
                body = dict(urllib.parse.parse_qsl(text)) if is_form else json.loads(text or "{}")
                with fake.lock:
                    status, result = fake.once(self, body)
                    lost = fake.lose_next > 0
                    fake.lose_next -= lost
                if lost:
                    # The work is done, and the response is lost.
                    self.close_connection = True
                    return
                data = json.dumps(result).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = handle_any

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def once(self, request, body):
        """A call with an idempotency key of an earlier one gets the same answer."""
        key = request.headers.get("Idempotency-Key")
        if key is not None and key in self.keys:
            return self.keys[key]
        path = urllib.parse.urlparse(request.path).path
        self.calls.append((request.command, path, body))
        answer = self.answer(request.command, path, body)
        if key is not None and answer[0] < 500:
            self.keys[key] = answer
        return answer

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class FakeUsher(FakeServer):
    """One payment of 10,000, as docs/payments.md describes it."""

    def __init__(self):
        super().__init__()
        self.payment = {"id": "p1", "due_amount": 10_000, "currency": "KRW", "due_at": "later"}
        self.status, self.reference, self.due, self.reported = "pending", None, 0, []

    def answer(self, method, path, body):
        problem = lambda status, code: (status, {"code": code, "status": status})
        if path == "/admin/refunds-due":
            item = {"payment_id": "p1", "provider": self.provider, "reference": self.reference,
                    "refund_due_amount": self.due, "due_since": "yesterday"}
            return 200, {"items": [item] if self.due else [], "next": None}
        if path == "/v1/payments/p1/confirm":
            if self.status == "voided":
                return problem(409, "payment_voided")
            if self.status == "confirmed" and body["reference"] != self.reference:
                return problem(409, "already_confirmed")
            if body["amount"] != self.payment["due_amount"]:
                return problem(422, "amount_mismatch")
            self.status, self.reference, self.provider = (
                "confirmed", body["reference"], body["provider"])
            return 200, {**self.payment, "status": self.status}
        if path == "/v1/payments/p1/void":
            if self.status == "confirmed":
                return problem(409, "not_voidable")
            self.status = "voided"
            return 200, {**self.payment, "status": self.status}
        if path == "/v1/payments/p1/refunded":
            if body["reference"] not in self.reported:
                self.reported.append(body["reference"])
                self.due -= body["amount"]
            return 200, {**self.payment, "status": "refunded"}
        return problem(404, "not_found")


class FakeStripe(FakeServer):
    def __init__(self):
        super().__init__()
        self.intents, self.refunds = {}, []

    def answer(self, method, path, body):
        parts = path.strip("/").split("/")
        if parts[1] == "refunds":
            self.refunds.append(int(body["amount"]))
            return 200, {"id": f"re_{len(self.refunds)}"}
        if len(parts) == 2:
            intent = {"id": f"pi_{len(self.intents) + 1}", "amount": int(body["amount"]),
                      "currency": body["currency"], "status": "requires_payment_method",
                      "metadata": {"usher_payment": body["metadata[usher_payment]"]}}
            self.intents[intent["id"]] = intent
            return 200, intent
        intent = self.intents[parts[2]]
        if method == "GET":
            return 200, intent
        if intent["status"] != "requires_capture":
            return 400, {"error": {"code": "payment_intent_unexpected_state"}}
        intent["status"] = {"capture": "succeeded", "cancel": "canceled"}[parts[3]]
        return 200, intent


class FakeToss(FakeServer):
    def __init__(self):
        super().__init__()
        self.done, self.cancelled, self.refuses = {}, [], False

    def answer(self, method, path, body):
        if path == "/v1/payments/confirm":
            if self.refuses:
                return 403, {"code": "REJECT_CARD_PAYMENT"}
            if body["paymentKey"] in self.done:
                return 400, {"code": "ALREADY_PROCESSED_PAYMENT"}
            self.done[body["paymentKey"]] = body["amount"]
            return 200, {"status": "DONE"}
        self.cancelled.append(body["cancelAmount"])
        return 200, {"cancels": [{"transactionKey": f"tx_{len(self.cancelled)}"}]}
