"""Sends the example of each request in both documents to a live service.

A seat of an example may be taken and its ids may be unknown, but the service must never call an
example malformed or invalid.
"""

import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

GENERATED = Path(__file__).parent / "generated"
PATH_VALUES = {
    "queue": "demo",
    "concert": "demo",
    "schedule": "demo-1",
    "coupon": "example-coupon",
    "code": "example-reward",
    "user": str(uuid.uuid4()),
    "id": "01995d2c-0000-8000-8000-000000000001",
}


def call(method: str, url: str, headers: dict[str, str], body: object) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    headers = {**headers, "content-type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method.upper())
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def send_examples(name: str, base: str, headers: dict[str, str]) -> int:
    refused = 0
    document = json.loads((GENERATED / f"{name}.json").read_text())
    for path, item in document["paths"].items():
        for method, operation in item.items():
            contents = operation.get("requestBody", {}).get("content", {})
            if "application/json" not in contents:
                continue
            target = path
            for key, value in PATH_VALUES.items():
                target = target.replace("{" + key + "}", value)
            headers["idempotency-key"] = str(uuid.uuid4())
            example = contents["application/json"]["example"]
            if "after" in example:
                # A cursor belongs to one installation, so the example has only its form.
                _, events = call("GET", f"{base}/admin/events", headers, None)
                example["after"] = json.loads(events)["next"]
            status, text = call(method, base + target, headers, example)
            code = json.loads(text).get("code", "") if text else ""
            print(f"{operation['operationId']}: {status} {code}")
            if status >= 500 or code in ("malformed_request", "invalid_request"):
                print(text)
                refused += 1
    return refused


user = {"usher-user": str(uuid.uuid4())}
_, ticket = call("post", f"{os.environ['USHER_URL']}/v1/queues/demo/tokens", user, None)
user["queue-token"] = json.loads(ticket)["token"]
admin = {"authorization": f"Bearer {os.environ['USHER_ADMIN_KEY']}"}
failed = send_examples("public", os.environ["USHER_URL"], user)
failed += send_examples("admin", os.environ["USHER_ADMIN"], admin)
sys.exit(1 if failed else 0)
