//! The events of a row: what happened, without what readers see of it.

use std::fmt;

use chrono::{DateTime, Utc};

use super::sql::EventRow;
use crate::coupons::CouponIssue;
use crate::ids::{QueueId, ReservationId, UserId};
use crate::outbox::event::{
    self, EventDecodeError, LedgerEntryEvent, OutboxEvent, PaymentEvent, PromotionEvent,
    ReservationEvent, RewardClaimEvent,
};
use crate::outbox::event_type::EventType;

/// The id of an event. The same event has the same id, also after MySQL went back and got it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EventId {
    partition: u16,
    epoch: u64,
    n: u64,
    index: u16,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evt-{}-{}-{}-{}", self.partition, self.epoch, self.n, self.index)
    }
}

/// What an event is about. The events of one subject are delivered in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EventSubject {
    /// A reservation with its payments.
    Reservation(ReservationId),
    /// A user's wallet, coupons and rewards.
    User(UserId),
    Queue(QueueId),
}

#[derive(Debug, Clone)]
pub(super) enum EventBody {
    Reservation(ReservationEvent),
    Payment(PaymentEvent),
    Entry(LedgerEntryEvent),
    Issue(CouponIssue),
    Claim(RewardClaimEvent),
    Promotion(PromotionEvent),
}

impl EventBody {
    /// The user whose id readers see.
    pub(super) fn user(&self) -> Option<UserId> {
        match self {
            Self::Reservation(reservation) => Some(reservation.user),
            Self::Payment(payment) => Some(payment.user),
            Self::Entry(entry) => Some(entry.user),
            Self::Issue(issue) => Some(issue.user),
            Self::Claim(claim) => Some(claim.user),
            Self::Promotion(_) => None,
        }
    }

    pub(super) fn subject(&self) -> EventSubject {
        match self {
            Self::Reservation(reservation) => EventSubject::Reservation(reservation.id),
            Self::Payment(payment) => EventSubject::Reservation(payment.reservation),
            Self::Entry(entry) => EventSubject::User(entry.user),
            Self::Issue(issue) => EventSubject::User(issue.user),
            Self::Claim(claim) => EventSubject::User(claim.user),
            Self::Promotion(promotion) => EventSubject::Queue(promotion.queue.clone()),
        }
    }
}

/// An event that MySQL has.
#[derive(Debug, Clone)]
pub(super) struct StoredEvent {
    pub(super) id: EventId,
    pub(super) kind: EventType,
    pub(super) at: DateTime<Utc>,
    pub(super) body: EventBody,
}

/// The events of a row, in order.
///
/// # Errors
/// When a newer release has written the row.
pub(super) fn events_of(
    partition: u16,
    row: &EventRow,
) -> Result<Vec<StoredEvent>, EventDecodeError> {
    let applied: Option<Vec<usize>> =
        row.applied.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut all = Vec::new();
    let mut index = 0;
    for (nth, event) in event::decode(&row.version, &row.payload)?.into_iter().enumerate() {
        let is_applied = applied.as_ref().is_none_or(|applied| applied.contains(&nth));
        let (Some(kind), at) = (EventType::of(&event), event.at()) else { continue };
        for body in bodies(event) {
            let id = EventId { partition, epoch: row.epoch, n: row.n, index };
            index += 1;
            if is_applied {
                all.push(StoredEvent { id, kind, at, body });
            }
        }
    }
    Ok(all)
}

fn bodies(event: OutboxEvent) -> Vec<EventBody> {
    match event {
        OutboxEvent::Reservation(reservation) => vec![EventBody::Reservation(reservation)],
        OutboxEvent::Payment(payment) => vec![EventBody::Payment(payment)],
        OutboxEvent::Entry(entry) => vec![EventBody::Entry(entry)],
        OutboxEvent::Claim(claim) => vec![EventBody::Claim(claim)],
        OutboxEvent::Promotion(promotion) => vec![EventBody::Promotion(promotion)],
        OutboxEvent::Issues(issues) => {
            let issue = |(user, id)| {
                EventBody::Issue(CouponIssue {
                    id,
                    coupon: issues.coupon.clone(),
                    user,
                    terms: issues.terms,
                    issued_at: issues.issued_at.timestamp_millis(),
                    used_at: None,
                })
            };
            issues.pairs.iter().copied().map(issue).collect()
        }
        OutboxEvent::Pending(_)
        | OutboxEvent::Draw(_)
        | OutboxEvent::Use(_)
        | OutboxEvent::Facts(_)
        | OutboxEvent::User(_) => Vec::new(),
    }
}
