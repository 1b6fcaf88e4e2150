"""Checks the messages of tests/vectors/webhooks.json, which all clients share."""

from __future__ import annotations

import json
import unittest
from pathlib import Path

from usher_client import WebhookError, verify_webhook

VECTORS = Path(__file__).resolve().parents[3] / "tests/vectors/webhooks.json"


class Webhook(unittest.TestCase):
    def test_messages(self) -> None:
        cases = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]
        self.assertGreaterEqual(len(cases), 10)
        for case in cases:
            with self.subTest(case["name"]):
                body, headers = case["body"].encode(), case["headers"]
                if case["event"] is None:
                    with self.assertRaises(WebhookError):
                        verify_webhook(body, headers, case["key"], now=case["now"])
                else:
                    event = verify_webhook(body, headers, case["key"], now=case["now"])
                    self.assertEqual(event, case["event"])


if __name__ == "__main__":
    unittest.main()
