"""Buys a seat with a client that openapi-python-client generated from the document of the service."""

import os
import time
import uuid
from typing import TypeVar

from generated.public_client import AuthenticatedClient
from generated.public_client.api.payment import create_payment
from generated.public_client.api.queue import get_ticket, join_queue
from generated.public_client.api.reservation import hold_best_seats
from generated.public_client.api.wallet import charge_wallet
from generated.public_client.models import (
    BestReservation,
    NewLedgerEntry,
    NewPayment,
    Payment,
    PaymentStatus,
    Reservation,
    Ticket,
    TicketStatus,
    WalletEntry,
)

Kind = TypeVar("Kind")


def expect(kind: type[Kind], answer: object) -> Kind:
    if not isinstance(answer, kind):
        raise SystemExit(f"expected {kind.__name__}, got {answer}")
    return answer


url = os.environ.get("USHER_URL", "http://127.0.0.1:8080")
user = AuthenticatedClient(
    base_url=url, token=str(uuid.uuid4()), prefix="", auth_header_name="usher-user"
)
ticket = expect(Ticket, join_queue.sync("demo", client=user))
visitor = user.with_headers({"queue-token": ticket.token})
while ticket.status == TicketStatus.WAITING:
    time.sleep(ticket.poll_after_ms / 1000)
    ticket = expect(Ticket, get_ticket.sync("demo", client=visitor))
best = BestReservation(schedule_id="demo-1", quantity=1)
held = expect(Reservation, hold_best_seats.sync(client=visitor, body=best))
charge = NewLedgerEntry(amount=held.amount)
key = str(uuid.uuid4())
expect(WalletEntry, charge_wallet.sync(client=visitor, body=charge, idempotency_key=key))
payment = expect(
    Payment,
    create_payment.sync(
        client=visitor,
        body=NewPayment(reservation_id=str(held.id)),
        idempotency_key=str(uuid.uuid4()),
    ),
)
if payment.status != PaymentStatus.CONFIRMED:
    raise SystemExit(f"not paid: {payment.status}")
print(f"generated Python client: bought seat {payment.seats[0].number}")
