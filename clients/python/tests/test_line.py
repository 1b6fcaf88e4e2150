"""Computes the positions of tests/vectors/line.json, which all clients share."""

from __future__ import annotations

import json
import unittest
from pathlib import Path

from usher_client import position_from_line

VECTORS = Path(__file__).resolve().parents[3] / "tests/vectors/line.json"


class Line(unittest.TestCase):
    def test_positions(self) -> None:
        cases = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]
        self.assertGreaterEqual(len(cases), 20)
        for case in cases:
            with self.subTest(case["name"]):
                position = position_from_line(case["document"], case["score"], case.get("lane"))
                self.assertEqual(position, case["position"])


if __name__ == "__main__":
    unittest.main()
