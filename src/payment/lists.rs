//! The list of a user's payments, newest first.
//!
//! A payment in progress is only in Redis, and the reservation it pays for names it. One that has
//! ended is in the outbox ([`pending_events`]) or in MySQL. The list reads them in the order in
//! which a payment moves, so none is missed, and the latest state of each counts.

use std::collections::HashMap;

use super::admin_routes::AdminPaymentDto;
use super::record::{Payment, PaymentState};
use super::routes::{self, PaymentDto};
use super::{Error, PaymentService, PaymentWithReservation, sql};
use crate::http::page::{self, PageCursor, PageLimit};
use crate::ids::{PaymentId, ReservationId, UserId, UserName};
use crate::money::Money;
use crate::outbox::event::{OutboxEvent, PaymentEvent, PaymentEventStatus};
use crate::outbox::pending_events;
use crate::seats::Reservation;

/// The payments of a page, and the cursor of the next page.
pub(super) type PaymentPage = (Vec<PaymentWithReservation>, Option<PageCursor>);

impl PaymentService {
    pub(super) async fn list_own(
        &self,
        user: UserId,
        limit: PageLimit,
        before: PageCursor,
    ) -> Result<PaymentPage, Error> {
        let mut all = self.in_progress(user).await?;
        all.extend(self.pending(user).await?);
        all.extend(sql::of_user(&self.mysql, user, before, limit.get() + 1).await?);
        let (items, next) = merge(all, limit, before);
        let ids: Vec<ReservationId> = items.iter().map(|payment| payment.reservation).collect();
        let reservations: HashMap<_, _> = self
            .seats
            .find_all(&ids)
            .await?
            .into_iter()
            .map(|reservation| (reservation.id, reservation))
            .collect();
        let with_reservation = |payment: Payment| PaymentWithReservation {
            // Several payments may have been tried for one reservation.
            reservation: reservations.get(&payment.reservation).cloned(),
            payment,
            replayed: false,
            is_durable: true,
        };
        Ok((items.into_iter().map(with_reservation).collect(), next))
    }

    /// The newest payments of a user.
    pub async fn recent_payments(
        &self,
        user: UserId,
        limit: PageLimit,
    ) -> Result<Vec<PaymentDto>, Error> {
        let (payments, _) = self.list_own(user, limit, PageCursor::START).await?;
        Ok(payments.into_iter().map(|payment| routes::dto(self, payment)).collect())
    }

    /// A payment as it was after an event.
    pub fn dto_of_event(
        &self,
        event: PaymentEvent,
        reservation: Option<Reservation>,
        user_id: UserName,
    ) -> AdminPaymentDto {
        let payment = of_event(event);
        let found =
            PaymentWithReservation { payment, reservation, replayed: false, is_durable: true };
        AdminPaymentDto { payment: routes::dto(self, found), user_id }
    }

    /// The payments of reservations that are being paid.
    async fn in_progress(&self, user: UserId) -> Result<Vec<Payment>, Error> {
        let (_, open) = self.seats.list_open(user).await?;
        let ids = open.into_iter().filter_map(|reservation| reservation.payment);
        let reads = ids.map(|id: PaymentId| {
            let partition = self.redis.keys().partition(id.slot());
            self.read.submit(partition, id)
        });
        let found = futures::future::try_join_all(reads).await?;
        Ok(found.into_iter().flatten().map(|(payment, _)| payment).collect())
    }

    /// The payments whose events are still in the outbox.
    async fn pending(&self, user: UserId) -> Result<Vec<Payment>, Error> {
        let queues = self.queue.ids();
        let partitions = queues.iter().map(|queue| self.redis.keys().partition(queue.slot()));
        let (redis, mysql, writer) = (&self.redis, &self.mysql, &self.writer);
        let mentioned = user.as_bytes();
        let events = pending_events::load_all(redis, mysql, writer, partitions, mentioned).await?;
        let found = events.into_iter().filter_map(|(_, event)| match event {
            OutboxEvent::Payment(event) if event.user == user => Some(of_event(event)),
            _ => None,
        });
        Ok(found.collect())
    }
}

fn of_event(event: PaymentEvent) -> Payment {
    let state = match event.status {
        PaymentEventStatus::Confirmed => PaymentState::Confirmed,
        PaymentEventStatus::Declined => PaymentState::Declined,
        PaymentEventStatus::Voided => PaymentState::Voided,
        PaymentEventStatus::Refunded => PaymentState::Refunded,
    };
    Payment {
        id: event.id,
        reservation: event.reservation,
        user: event.user,
        queue: event.queue,
        state,
        attempt: event.attempt,
        amount: event.amount,
        discount: event.discount,
        coupon: event.coupon,
        issue: event.issue,
        reason: event.reason,
        balance_after: event.balance_after,
        refunded: event.refunded.unwrap_or(Money::ZERO),
        external: event.external,
        cancelling: None,
        n: 0,
        created_at: event.created_at.timestamp_millis(),
        at: event.at.timestamp_millis(),
    }
}

fn cursor(payment: &Payment) -> PageCursor {
    PageCursor { at: payment.created_at, id: payment.id.uuid() }
}

/// Each payment once with its latest state, newest first.
fn merge(
    all: Vec<Payment>,
    limit: PageLimit,
    before: PageCursor,
) -> (Vec<Payment>, Option<PageCursor>) {
    let mut latest: HashMap<PaymentId, Payment> = HashMap::new();
    for payment in all.into_iter().filter(|payment| cursor(payment) < before) {
        let order = |payment: &Payment| (payment.attempt, payment.at, payment.refunded);
        match latest.get(&payment.id) {
            Some(known) if order(known) >= order(&payment) => {}
            _ => drop(latest.insert(payment.id, payment)),
        }
    }
    let mut items: Vec<Payment> = latest.into_values().collect();
    items.sort_unstable_by_key(|payment| std::cmp::Reverse(cursor(payment)));
    page::cut(items, limit, cursor)
}
