//! Payments, as Redis and MySQL keep them.

use serde::Deserialize;

use crate::ids::{CouponId, IssueId, PaymentId, QueueId, ReservationId, UserId};
use crate::money::Money;

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// The wallet is being debited, or may have been.
    Pending,
    /// Being turned back; it can't be confirmed any more.
    Voiding,
    /// Paid: the seats are sold.
    Confirmed,
    /// Turned back because the balance did not suffice.
    Declined,
    /// Turned back for another reason.
    Voided,
    /// Being given back after it was confirmed.
    Refunding,
    /// Given back after it was confirmed.
    Refunded,
}

/// The payment of one reservation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Payment {
    /// Its id.
    pub id: PaymentId,
    /// What is paid for.
    pub reservation: ReservationId,
    /// Who pays.
    pub user: UserId,
    /// The queue whose partition it lives in.
    pub queue: QueueId,
    /// Where it stands.
    pub state: PaymentState,
    /// Which attempt this is, from 1. Part of the op ids in the wallet.
    pub attempt: u32,
    /// The price of the seats.
    pub amount: Money,
    /// What a coupon takes off.
    pub discount: Money,
    /// The coupon that the discount comes from; `None` also while the issue is none that a coupon has.
    #[serde(default)]
    pub coupon: Option<CouponId>,
    /// The issue of it that the payment uses.
    #[serde(default)]
    pub issue: Option<IssueId>,
    /// Why it was turned back.
    #[serde(default)]
    pub reason: Option<String>,
    /// The balance right after the debit, once confirmed.
    #[serde(default)]
    pub balance_after: Option<Money>,
    /// The outbox entry of its last end; 0 before that, and where MySQL tells of it.
    #[serde(default)]
    pub n: u64,
    /// When the first attempt began, milliseconds since 1970.
    pub created_at: i64,
    /// When it came to this state, milliseconds since 1970.
    pub at: i64,
}

impl Payment {
    /// What is taken from the wallet.
    pub fn to_pay(&self) -> Money {
        Money::new(self.amount.get() - self.discount.get()).unwrap_or(Money::ZERO)
    }
}
