"""The calls of a booking backend to Usher and to a provider, with the standard library only."""

import json
import time
import urllib.error
import urllib.request

MAX_ATTEMPTS = 6
RETRIED_STATUSES = (429, 500, 502, 503, 504)


class CallError(Exception):
    """A final error response. `code` is the problem code of Usher or the error code of a provider."""

    def __init__(self, status, body):
        error = body.get("error", {}) if isinstance(body.get("error"), dict) else {}
        self.status, self.code = status, body.get("code") or error.get("code")
        super().__init__(f"{status} {self.code}")


def call(method, url, body=None, headers=None, encode=json.dumps, pause=0.2):
    """Sends a request. Repeats it after a lost response and after a temporary error.

    Every call of the adapters is idempotent, so a repetition is safe.
    """
    data = None if body is None else encode(body).encode()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        request = urllib.request.Request(url, data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                if response.status != 202 or attempt == MAX_ATTEMPTS:
                    return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code not in RETRIED_STATUSES or attempt == MAX_ATTEMPTS:
                raise CallError(error.code, json.loads(error.read() or b"{}")) from None
        except OSError:
            if attempt == MAX_ATTEMPTS:
                raise
        time.sleep(pause * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


class UsherBackend:
    """Usher's routes for a booking backend."""

    def __init__(self, url, service_key, admin_url=None, admin_key=None, pause=0.2):
        self.url, self.admin_url, self.pause = url, admin_url, pause
        self.headers = self._headers(service_key)
        self.admin_headers = self._headers(admin_key)

    @staticmethod
    def _headers(key):
        return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def _post(self, payment, verb, body):
        url = f"{self.url}/v1/payments/{payment}/{verb}"
        return call("POST", url, body, self.headers, pause=self.pause)

    def confirm(self, payment, provider, reference, amount):
        """True: the seats are sold. False: the backend must cancel at the provider."""
        body = {"provider": provider, "reference": reference, "amount": amount}
        try:
            self._post(payment, "confirm", body)
        except CallError as error:
            if error.code in (
                "payment_voided", "already_confirmed", "amount_mismatch", "not_found",
            ):
                return False
            raise
        return True

    def void(self, payment, reason):
        """A payment that is confirmed meanwhile stays confirmed."""
        try:
            self._post(payment, "void", {"reason": reason})
        except CallError as error:
            if error.code != "not_voidable":
                raise

    def report_refund(self, payment, reference, amount):
        self._post(payment, "refunded", {"reference": reference, "amount": amount})

    def refunds_due(self, provider):
        """The payments of a provider with a refund due."""
        before = ""
        while before is not None:
            query = f"?limit=500&before={before}" if before else "?limit=500"
            url = f"{self.admin_url}/admin/refunds-due{query}"
            page = call("GET", url, headers=self.admin_headers, pause=self.pause)
            yield from (due for due in page["items"] if due["provider"] == provider)
            before = page["next"]
