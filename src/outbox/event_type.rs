//! Which outbox events are delivered to other systems, and under which name.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::event::{
    ClaimStatus, EntryKind, OutboxEvent, PaymentEvent, PaymentEventStatus, ReservationEvent,
    ReservationEventStatus,
};

/// What happened.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum EventType {
    #[serde(rename = "reservation.confirmed")]
    ReservationConfirmed,
    /// Some or all seats of a confirmed reservation were cancelled.
    #[serde(rename = "reservation.cancelled")]
    ReservationCancelled,
    #[serde(rename = "payment.confirmed")]
    PaymentConfirmed,
    /// Some or all of the money was given back.
    #[serde(rename = "payment.refunded")]
    PaymentRefunded,
    /// A provider has to pay money back.
    #[serde(rename = "payment.refund_due")]
    PaymentRefundDue,
    #[serde(rename = "wallet.charged")]
    WalletCharged,
    /// Money of a wallet was spent on something else than a reservation.
    #[serde(rename = "wallet.used")]
    WalletUsed,
    #[serde(rename = "coupon.issued")]
    CouponIssued,
    #[serde(rename = "reward.claimed")]
    RewardClaimed,
    /// One promotion of waiting users.
    #[serde(rename = "queue.admitted")]
    QueueAdmitted,
}

impl EventType {
    pub const ALL: [Self; 10] = [
        Self::ReservationConfirmed,
        Self::ReservationCancelled,
        Self::PaymentConfirmed,
        Self::PaymentRefunded,
        Self::PaymentRefundDue,
        Self::WalletCharged,
        Self::WalletUsed,
        Self::CouponIssued,
        Self::RewardClaimed,
        Self::QueueAdmitted,
    ];

    /// The type of an outbox event; `None` when it is not delivered.
    pub fn of(event: &OutboxEvent) -> Option<Self> {
        match event {
            OutboxEvent::Reservation(reservation) => of_reservation(reservation),
            OutboxEvent::Payment(payment) => of_payment(payment),
            OutboxEvent::Entry(entry) => match entry.kind {
                EntryKind::Charge => Some(Self::WalletCharged),
                EntryKind::Use => Some(Self::WalletUsed),
                EntryKind::Payment
                | EntryKind::Refund
                | EntryKind::Reward
                | EntryKind::RewardReversal => None,
            },
            OutboxEvent::Issues(_) => Some(Self::CouponIssued),
            OutboxEvent::Claim(claim) => {
                (claim.status == ClaimStatus::Success).then_some(Self::RewardClaimed)
            }
            OutboxEvent::Promotion(_) => Some(Self::QueueAdmitted),
            OutboxEvent::Pending(_)
            | OutboxEvent::Draw(_)
            | OutboxEvent::Use(_)
            | OutboxEvent::Facts(_)
            | OutboxEvent::User(_) => None,
        }
    }

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReservationConfirmed => "reservation.confirmed",
            Self::ReservationCancelled => "reservation.cancelled",
            Self::PaymentConfirmed => "payment.confirmed",
            Self::PaymentRefunded => "payment.refunded",
            Self::PaymentRefundDue => "payment.refund_due",
            Self::WalletCharged => "wallet.charged",
            Self::WalletUsed => "wallet.used",
            Self::CouponIssued => "coupon.issued",
            Self::RewardClaimed => "reward.claimed",
            Self::QueueAdmitted => "queue.admitted",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

fn of_reservation(reservation: &ReservationEvent) -> Option<EventType> {
    match reservation.status {
        ReservationEventStatus::Confirmed if reservation.is_sale() => {
            Some(EventType::ReservationConfirmed)
        }
        ReservationEventStatus::Confirmed | ReservationEventStatus::Cancelled => {
            Some(EventType::ReservationCancelled)
        }
        ReservationEventStatus::Released | ReservationEventStatus::Expired => None,
    }
}

fn of_payment(payment: &PaymentEvent) -> Option<EventType> {
    if payment.external.as_ref().is_some_and(|external| external.refund_due_since.is_some()) {
        return Some(EventType::PaymentRefundDue);
    }
    match payment.status {
        PaymentEventStatus::Confirmed if payment.refunded.is_none() => {
            Some(EventType::PaymentConfirmed)
        }
        PaymentEventStatus::Confirmed | PaymentEventStatus::Refunded => {
            Some(EventType::PaymentRefunded)
        }
        PaymentEventStatus::Declined | PaymentEventStatus::Voided => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_api() {
        for kind in EventType::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(EventType::named(kind.as_str()), Some(kind));
        }
        assert_eq!(EventType::named("queue.joined"), None);
    }
}
