"""Lets Locust measure the calls of `usher_client`."""

import re

import httpx

# Names of the calls in Locust's statistics.
CALL_NAMES = [
    (re.compile(f"{method} /v1/{path}$"), name)
    for method, path, name in [
        ("POST", "queues/[^/]+/tokens", "join"),
        ("GET", "queues/[^/]+/tokens/me", "poll"),
        ("DELETE", "queues/[^/]+/tokens/me", "leave"),
        ("GET", "concerts/[^/]+/schedules", "list dates"),
        ("POST", "reservations", "hold"),
        ("POST", "reservations/best", "hold best"),
        ("POST", "wallet/charges", "charge"),
        ("POST", "payments", "pay"),
        ("GET", "payments/[^/]+", "read payment"),
        ("POST", "coupons/[^/]+/issues", "request coupon"),
        ("POST", "rewards/[^/]+/claims", "claim reward"),
        ("GET", "wallet", "read wallet"),
    ]
]

# Refusals that are no failures.
ALLOWED_REFUSALS = {
    "queue_token_expired",
    "seat_taken",
    "not_enough_seats",
    "sold_out",
    "already_claimed",
    "condition_not_met",
}


class LocustTransport(httpx.BaseTransport):
    """Sends the requests of `usher_client` through the client of Locust, which measures them."""

    def __init__(self, session):
        self.session = session

    def handle_request(self, request):
        headers = {key: value for key, value in request.headers.items() if key != "host"}
        call = f"{request.method} {request.url.path}"
        name = next((name for pattern, name in CALL_NAMES if pattern.match(call)), call)
        with self.session.request(
            request.method,
            str(request.url),
            name=name,
            data=request.read() or None,
            headers=headers,
            catch_response=True,
        ) as response:
            if response.status_code == 0:
                response.failure(str(response.error))
                raise httpx.ConnectError(str(response.error), request=request)
            # Locust has decompressed the body.
            received = [
                (key, value)
                for key, value in response.headers.items()
                if key.lower() not in ("content-encoding", "content-length", "transfer-encoding")
            ]
            status, content = response.status_code, response.content
            answer = httpx.Response(status, headers=received, content=content)
            if answer.is_success or problem_code(answer) in ALLOWED_REFUSALS:
                response.success()
            else:
                response.failure(f"{answer.status_code}: {answer.text[:200]}")
            return answer


def problem_code(response):
    try:
        return response.json().get("code")
    except ValueError:
        return None
