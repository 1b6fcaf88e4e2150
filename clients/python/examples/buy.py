#!/usr/bin/env python3
"""Buys two seats of the concert `demo` and prints them.

Usage: buy.py (address: USHER_URL, http://127.0.0.1:8080 by default)
"""

import os
import sys
import uuid

from usher_client import ProblemError, UsherClient
from usher_client.schema import Ticket


def print_position(ticket: Ticket) -> None:
    position, wait = ticket.get("position"), ticket.get("estimated_wait_seconds")
    if position is not None:
        print(f"position {position}, estimated wait {wait} s", file=sys.stderr)


def main() -> None:
    url = os.environ.get("USHER_URL", "http://127.0.0.1:8080")
    with UsherClient(url, user=str(uuid.uuid4())) as usher:
        # Wait for admission. The token resumes the visit after a restart:
        # usher.resume_queue("demo", token).
        visit = usher.join_queue("demo")
        visit.wait_until_active(on_ticket=print_position, stream=True)

        # Hold two adjacent seats of the first schedule that has them.
        schedules = visit.list_schedules("demo")
        schedule = next((item for item in schedules if item["available_seats"] >= 2), None)
        if schedule is None:
            sys.exit("sold out")
        held = visit.hold_best_seats(schedule["id"], 2)

        # Use a coupon if there is one, then pay from the wallet.
        coupon_issue_id = None
        try:
            coupon_issue_id = usher.issue_coupon("demo-coupon")["id"]
        except ProblemError as error:
            print(f"no coupon: {error.code}", file=sys.stderr)
        usher.charge_wallet(held["amount"])
        payment = visit.pay(held["id"], coupon_issue_id=coupon_issue_id)
        if payment["status"] != "confirmed":
            sys.exit(f"not paid: {payment['status']}")
        seats = ",".join(str(seat["number"]) for seat in payment["seats"])
        print(f"bought: {seats} for {payment['paid']}")


if __name__ == "__main__":
    main()
