//! The events of an outbox entry, schema version 1.
//!
//! The payload is a MessagePack array of the events of one script call, each `[kind, body]` with a
//! map as body. Decoding is strict: an unknown field is an error, because it would never reach
//! MySQL and the trim would then destroy it. A new field therefore needs a new version.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use super::event_decode::{EventDecodeError, decode};
use super::lua;
use crate::coupon_terms::CouponTerms;
use crate::ids::{
    ClaimId, ConcertId, CouponId, EntryId, IssueId, PaymentId, QueueId, RequestFingerprint,
    ReservationId, RewardCode, ScheduleId, UserId, UserName,
};
use crate::money::Money;

pub use super::payment_event::{
    ExternalPayment, PaymentEvent, PendingPaymentEvent, ProviderRefund,
};

/// The version that the scripts write. It is the name of the entry's only field.
pub const VERSION: &str = "v1";

/// One durable change.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "lowercase")]
pub enum OutboxEvent {
    /// A ledger entry was added to a wallet.
    Entry(LedgerEntryEvent),
    /// A reservation reached a final state, or was cancelled.
    Reservation(ReservationEvent),
    /// A payment reached a final state.
    Payment(PaymentEvent),
    /// An external payment waits for its provider.
    Pending(PendingPaymentEvent),
    /// A range of users was admitted.
    Promotion(PromotionEvent),
    /// The places of a lottery became final.
    Draw(DrawEvent),
    /// A coupon was issued to users.
    Issues(CouponIssuesEvent),
    /// A coupon issue was redeemed or returned.
    Use(CouponRedemptionEvent),
    /// A reward claim succeeded or failed.
    Claim(RewardClaimEvent),
    /// An operator set the facts of a user.
    Facts(UserFactsEvent),
    /// The id of a user was recorded.
    User(UserRecordedEvent),
}

impl OutboxEvent {
    /// The time of the event, by Redis' clock.
    pub fn at(&self) -> DateTime<Utc> {
        match self {
            Self::Entry(entry) => entry.at,
            Self::Reservation(reservation) => reservation.at,
            Self::Payment(payment) => payment.at,
            Self::Pending(pending) => pending.at,
            Self::Promotion(promotion) => promotion.at,
            Self::Draw(draw) => draw.at,
            Self::Issues(issues) => issues.issued_at,
            Self::Use(issue_use) => issue_use.at,
            Self::Claim(claim) => claim.at,
            Self::Facts(facts) => facts.at,
            Self::User(user) => user.at,
        }
    }

    /// The number of changes in the event: an `Issues` event has one per user.
    pub fn count(&self) -> usize {
        match self {
            Self::Issues(issues) => issues.pairs.len(),
            _ => 1,
        }
    }
}

/// One entry of a wallet's ledger.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerEntryEvent {
    pub id: EntryId,
    pub user: UserId,
    /// Determines the sign of `amount`.
    pub kind: EntryKind,
    pub amount: Money,
    /// The balance after it.
    pub balance: Money,
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
    /// The idempotency key of the request that moved the money.
    pub key: Option<String>,
    pub fingerprint: Option<RequestFingerprint>,
    /// The payment that moved the money.
    pub payment: Option<PaymentId>,
    /// The attempt of that payment, from 1; `None` for the refund of a cancelled payment.
    pub attempt: Option<u32>,
    /// The reservation that the payment is for.
    pub reservation: Option<ReservationId>,
    /// The claim that a reward is for.
    pub claim: Option<ClaimId>,
    /// The seats that the refund of a cancellation is for, separated by commas.
    pub cancelled_seats: Option<String>,
    /// Whether these were the last seats of the payment.
    pub ends_payment: Option<bool>,
    /// The caller's reference of a charge or a use.
    pub reference: Option<String>,
}

/// A reservation after the event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationEvent {
    pub id: ReservationId,
    pub user: UserId,
    pub queue: QueueId,
    pub concert: ConcertId,
    pub schedule: ScheduleId,
    #[serde(deserialize_with = "lua::list")]
    pub seats: Vec<u32>,
    /// The seats as they were offered: JSON text, `[{number, section, price}]`.
    #[serde(deserialize_with = "lua::json_array")]
    pub detail: String,
    /// The sum of the seat prices.
    pub amount: Money,
    pub status: ReservationEventStatus,
    /// The end of the hold, also when it ended earlier.
    #[serde(deserialize_with = "lua::millis")]
    pub held_until: DateTime<Utc>,
    /// The start of the hold.
    #[serde(deserialize_with = "lua::millis")]
    pub created_at: DateTime<Utc>,
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
    /// The queue score of the admission under which the seats were held.
    pub score: Option<i64>,
    /// The title of the concert when the seats were held.
    pub title: Option<String>,
    /// The start of the show when the seats were held.
    #[serde(default, deserialize_with = "lua::optional_millis")]
    pub starts_at: Option<DateTime<Utc>>,
    /// The payment that paid for it.
    pub payment: Option<PaymentId>,
    /// The amount that the payment debited.
    pub paid: Option<Money>,
    pub discount: Option<Money>,
    /// What was cancelled of it, in order. Its seats are in `detail` and not in `seats`.
    pub cancellations: Option<Vec<SeatCancellation>>,
}

impl ReservationEvent {
    /// Whether the event sells the seats. Later events of a confirmed reservation cancel some.
    pub fn is_sale(&self) -> bool {
        self.status == ReservationEventStatus::Confirmed && self.cancellations.is_none()
    }
}

/// The cancellation of some or all seats of a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeatCancellation {
    /// The idempotency key of the request. Empty for one that was lost and resumed.
    pub key: String,
    /// Of the request, in hexadecimal.
    pub fingerprint: String,
    #[serde(deserialize_with = "lua::list")]
    pub seats: Vec<u32>,
    pub refund: Money,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// The users that one promotion admitted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromotionEvent {
    pub queue: QueueId,
    /// The lowest score.
    pub from: i64,
    /// The highest score.
    pub to: i64,
    /// The number of admitted users.
    pub count: u32,
    /// The limit that was in force: at most `limit` users in `interval` milliseconds.
    pub limit: u32,
    pub interval: u32,
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// A draw of a queue at its opening.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawEvent {
    pub queue: QueueId,
    /// The number of the draw, from 1.
    pub draw: u32,
    /// The number of users who took part.
    pub entrants: u64,
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// The issues of a coupon by one script call. One event holds hundreds of them, 32 bytes each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CouponIssuesEvent {
    pub coupon: CouponId,
    #[serde(deserialize_with = "lua::millis")]
    pub issued_at: DateTime<Utc>,
    /// The terms of these issues.
    pub terms: CouponTerms,
    /// User id and issue id, 16 bytes each.
    #[serde(deserialize_with = "lua::pairs")]
    pub pairs: Vec<(UserId, IssueId)>,
}

/// A coupon issue after a payment redeemed or returned it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CouponRedemptionEvent {
    pub id: IssueId,
    pub coupon: CouponId,
    pub user: UserId,
    #[serde(deserialize_with = "lua::millis")]
    pub issued_at: DateTime<Utc>,
    /// `None` after it was returned.
    #[serde(default, deserialize_with = "lua::optional_millis")]
    pub used_at: Option<DateTime<Utc>>,
    /// The payment that redeemed it; `None` after it was returned.
    pub payment: Option<PaymentId>,
    /// The time of the event.
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// An attempt to claim a reward, or the revocation of a claim.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardClaimEvent {
    pub id: ClaimId,
    pub reward: RewardCode,
    pub user: UserId,
    pub status: ClaimStatus,
    /// Why it failed, as a code word.
    pub reason: Option<String>,
    /// Points and conditions (JSON text) of a granted claim that a refund can revoke.
    pub points: Option<Money>,
    pub conditions: Option<String>,
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// All facts of a user.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserFactsEvent {
    pub user: UserId,
    /// JSON text, `{fact: integer}`.
    #[serde(deserialize_with = "lua::json_object")]
    pub facts: String,
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// The key of a user whose id is not a UUID, with that id.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRecordedEvent {
    pub user: UserId,
    pub name: UserName,
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

macro_rules! words {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal),* $(,)? }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        pub enum $name {$(
            $(#[$word_doc])*
            #[serde(rename = $word)]
            $variant,
        )*}

        impl $name {
            /// The word in scripts, in SQL and in the API.
            pub fn as_str(self) -> &'static str {
                match self {$(Self::$variant => $word),*}
            }
        }
    )*};
}

words! {
    /// Why a balance changed.
    EntryKind {
        /// Money was added to the wallet.
        Charge = "charge",
        /// Money was spent on something else than a reservation.
        Use = "use",
        Payment = "payment",
        /// A payment was refunded.
        Refund = "refund",
        Reward = "reward",
        /// The points of a revoked claim.
        RewardReversal = "reward_reversal",
    }

    /// The outcome of a reward claim.
    ClaimStatus {
        Success = "success",
        Failed = "failed",
        /// Granted, then revoked by a refund.
        Revoked = "revoked",
    }

    /// The final state of a hold.
    ReservationEventStatus {
        /// Paid.
        Confirmed = "confirmed",
        /// Released by the user.
        Released = "released",
        /// Not paid in time.
        Expired = "expired",
        /// Confirmed, then cancelled.
        Cancelled = "cancelled",
    }

    /// The final states of a payment.
    PaymentEventStatus {
        /// Debited; the seats are sold.
        Confirmed = "confirmed",
        /// Refused by the wallet or a rule.
        Declined = "declined",
        /// Rolled back before it was confirmed.
        Voided = "voided",
        /// Confirmed, then cancelled and refunded.
        Refunded = "refunded",
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::samples;
