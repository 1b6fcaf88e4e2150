//! The events of payments.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::event::PaymentEventStatus;
use super::lua;
use crate::ids::{
    CouponId, IssueId, PaymentId, QueueId, RequestFingerprint, ReservationId, ScheduleId, UserId,
};
use crate::money::Money;

/// A payment after the event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentEvent {
    pub id: PaymentId,
    pub reservation: ReservationId,
    pub user: UserId,
    pub queue: QueueId,
    /// The price before the discount.
    pub amount: Money,
    /// The discount of a coupon.
    pub discount: Money,
    pub status: PaymentEventStatus,
    /// Why it was declined or voided, as a code word.
    pub reason: Option<String>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The wallet's balance after the debit; `None` when nothing was debited.
    pub balance_after: Option<Money>,
    pub coupon: Option<CouponId>,
    /// The user's issue of that coupon.
    pub issue: Option<IssueId>,
    /// The idempotency key of the payment request.
    pub key: Option<String>,
    pub fingerprint: Option<RequestFingerprint>,
    /// The sum of what cancelled seats gave back.
    pub refunded: Option<Money>,
    /// Only of an external payment.
    pub external: Option<Box<ExternalPayment>>,
    /// The start of the payment.
    #[serde(deserialize_with = "lua::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// What an external payment has beside a payment by wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalPayment {
    /// The part that the wallet pays.
    pub wallet_amount: Money,
    /// What is left for the provider. `None` until the discount is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_amount: Option<Money>,
    /// Until when the payment waits, in milliseconds since 1970. MySQL does not have it of a
    /// payment that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<i64>,
    /// Who took the money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The provider's name of its payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What the provider has paid back, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refunds: Vec<ProviderRefund>,
    /// Since when the provider has to pay money back, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_due_since: Option<i64>,
}

/// Money that a provider has paid back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderRefund {
    /// The provider's name of its refund.
    pub reference: String,
    pub amount: Money,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// An external payment that waits for its provider. A restore writes the two records back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingPaymentEvent {
    pub id: PaymentId,
    pub reservation: ReservationId,
    pub user: UserId,
    pub queue: QueueId,
    pub schedule: ScheduleId,
    pub attempt: u32,
    /// The discount that is reserved with the coupon issue.
    pub discount: Money,
    /// The part that the wallet was debited.
    pub wallet_amount: Money,
    pub coupon: Option<CouponId>,
    pub issue: Option<IssueId>,
    /// The idempotency key of the payment request.
    pub key: Option<String>,
    pub fingerprint: Option<RequestFingerprint>,
    #[serde(deserialize_with = "lua::millis")]
    pub created_at: DateTime<Utc>,
    /// Until when it waits.
    #[serde(deserialize_with = "lua::millis")]
    pub due_at: DateTime<Utc>,
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
    /// The record of the payment, as in Redis.
    #[serde(deserialize_with = "lua::bytes")]
    pub payment_record: Vec<u8>,
    /// The record of its reservation, as in Redis.
    #[serde(deserialize_with = "lua::bytes")]
    pub reservation_record: Vec<u8>,
}

impl ExternalPayment {
    /// The sum that the provider has paid back.
    pub fn paid_back(&self) -> i64 {
        self.refunds.iter().map(|refund| refund.amount.get()).sum()
    }
}
