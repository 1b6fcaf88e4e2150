//! What an outbox entry says: events of schema version 1, as the scripts pack them.
//!
//! An entry's payload is a MessagePack array of the events of one script call, each `[kind, body]` with a map as body. It is read
//! strictly: a field that isn't known here would be a fact that MySQL never gets and that the trim then destroys, so it is an
//! error. Whoever adds a field adds a version.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::lua;
use crate::ids::{
    ClaimId, ConcertId, CouponId, EntryId, IssueId, PaymentId, QueueId, RequestFingerprint,
    ReservationId, RewardCode, ScheduleId, UserId,
};
use crate::money::Money;

/// The version that scripts write now: the name of the entry's only field.
pub const VERSION: &str = "v1";

/// One durable fact.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "lowercase")]
pub enum OutboxEvent {
    /// A line was added to a wallet's ledger.
    Entry(LedgerEntryEvent),
    /// A reservation reached a state worth keeping.
    Reservation(ReservationEvent),
    /// A payment reached one of its ends.
    Payment(PaymentEvent),
    /// A run of users was let in.
    Promotion(PromotionEvent),
    /// A coupon was issued to some users.
    Issues(CouponIssuesEvent),
    /// An issue was used, or given back.
    Use(CouponRedemptionEvent),
    /// A reward was claimed, with or without success.
    Claim(RewardClaimEvent),
    /// A user's facts were set.
    Facts(UserFactsEvent),
}

impl OutboxEvent {
    /// When it happened, by Redis' clock.
    pub fn at(&self) -> DateTime<Utc> {
        match self {
            Self::Entry(entry) => entry.at,
            Self::Reservation(reservation) => reservation.at,
            Self::Payment(payment) => payment.at,
            Self::Promotion(promotion) => promotion.at,
            Self::Issues(issues) => issues.issued_at,
            Self::Use(issue_use) => issue_use.at,
            Self::Claim(claim) => claim.at,
            Self::Facts(facts) => facts.at,
        }
    }

    /// How many facts it tells.
    pub fn count(&self) -> usize {
        match self {
            Self::Issues(issues) => issues.pairs.len(),
            _ => 1,
        }
    }
}

/// A line of a wallet's ledger.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerEntryEvent {
    /// The entry.
    pub id: EntryId,
    /// Whose wallet.
    pub user: UserId,
    /// Which way the amount went.
    pub kind: EntryKind,
    /// How much; the kind says which way.
    pub amount: Money,
    /// The balance after it.
    pub balance: Money,
    /// When, by Redis' clock.
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
    /// The idempotency key of the request that moved the money.
    pub key: Option<String>,
    /// The digest of that request.
    pub fingerprint: Option<RequestFingerprint>,
    /// The payment that moved the money.
    pub payment: Option<PaymentId>,
    /// Which of its attempts; none where a confirmed payment was given back.
    pub attempt: Option<u32>,
}

/// A reservation as it stands after the event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationEvent {
    /// The reservation.
    pub id: ReservationId,
    /// Whose.
    pub user: UserId,
    /// Through which queue.
    pub queue: QueueId,
    /// Of which concert.
    pub concert: ConcertId,
    /// Of which date.
    pub schedule: ScheduleId,
    /// The seats' numbers.
    #[serde(deserialize_with = "lua::list")]
    pub seats: Vec<u32>,
    /// The seats as they were offered: JSON text, `[{number, section, price}]`.
    #[serde(deserialize_with = "lua::json_array")]
    pub detail: String,
    /// The sum of the seats' prices.
    pub amount: Money,
    /// What became of it.
    pub status: ReservationEventStatus,
    /// When the hold ends, or would have ended.
    #[serde(deserialize_with = "lua::millis")]
    pub held_until: DateTime<Utc>,
    /// When the hold began.
    #[serde(deserialize_with = "lua::millis")]
    pub created_at: DateTime<Utc>,
    /// When it reached this status.
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
    /// The place in line of the slot that it was made under.
    pub score: Option<i64>,
}

/// A payment as it stands after the event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentEvent {
    /// The payment.
    pub id: PaymentId,
    /// What it pays for.
    pub reservation: ReservationId,
    /// Who pays.
    pub user: UserId,
    /// Through which queue.
    pub queue: QueueId,
    /// The price before the discount.
    pub amount: Money,
    /// What a coupon takes off it.
    pub discount: Money,
    /// The end that it reached.
    pub status: PaymentEventStatus,
    /// Why it was declined or voided, as a word.
    pub reason: Option<String>,
    /// Which attempt this was, from 1.
    pub attempt: u32,
    /// The wallet's balance after it, where the wallet answered.
    pub balance_after: Option<Money>,
    /// The coupon that the discount comes from.
    pub coupon: Option<CouponId>,
    /// The user's issue of it.
    pub issue: Option<IssueId>,
    /// The idempotency key of the request that began it.
    pub key: Option<String>,
    /// The digest of that request.
    pub fingerprint: Option<RequestFingerprint>,
    /// The idempotency key of the request that cancelled it.
    pub cancel_key: Option<String>,
    /// The digest of that request.
    pub cancel_fingerprint: Option<RequestFingerprint>,
    /// When the payment began.
    #[serde(deserialize_with = "lua::millis")]
    pub created_at: DateTime<Utc>,
    /// When it reached this end.
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// A run of users that one promotion let in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromotionEvent {
    /// Into which queue.
    pub queue: QueueId,
    /// The score of the first.
    pub from: i64,
    /// The score of the last.
    pub to: i64,
    /// How many.
    pub count: u32,
    /// When, by Redis' clock.
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// A coupon in the hands of all to whom one call gave it: a rush makes hundreds at once, so each costs thirty-two bytes and no more.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CouponIssuesEvent {
    /// Which coupon.
    pub coupon: CouponId,
    /// When, by Redis' clock.
    #[serde(deserialize_with = "lua::millis")]
    pub issued_at: DateTime<Utc>,
    /// To whom, and under which id: sixteen bytes each.
    #[serde(deserialize_with = "lua::pairs")]
    pub pairs: Vec<(UserId, IssueId)>,
}

/// An issue after a payment used it, or gave it back.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CouponRedemptionEvent {
    /// The issue.
    pub id: IssueId,
    /// Of which coupon.
    pub coupon: CouponId,
    /// Whose.
    pub user: UserId,
    /// When it was issued.
    #[serde(deserialize_with = "lua::millis")]
    pub issued_at: DateTime<Utc>,
    /// When it was used; none once it is given back.
    #[serde(default, deserialize_with = "lua::maybe_millis")]
    pub used_at: Option<DateTime<Utc>>,
    /// The payment that used it; none once it is given back.
    pub payment: Option<PaymentId>,
    /// When this happened.
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// An attempt to claim a reward.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardClaimEvent {
    /// The attempt.
    pub id: ClaimId,
    /// Which reward.
    pub reward: RewardCode,
    /// By whom.
    pub user: UserId,
    /// How it went.
    pub status: ClaimStatus,
    /// Why it failed, as a word.
    pub reason: Option<String>,
    /// When, by Redis' clock.
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

/// What is known of a user, as a whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserFactsEvent {
    /// The user.
    pub user: UserId,
    /// JSON text, `{fact: integer}`.
    #[serde(deserialize_with = "lua::json_object")]
    pub facts: String,
    /// When they were set.
    #[serde(deserialize_with = "lua::millis")]
    pub at: DateTime<Utc>,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        pub enum $name {$(
            $(#[$word_doc])*
            #[serde(rename = $word)]
            $variant,
        )*}

        impl $name {
            /// The word for it in scripts, in SQL and in the API.
            pub fn as_str(self) -> &'static str {
                match self {$(Self::$variant => $word),*}
            }
        }
    )*};
}

words! {
    /// Why a balance changed.
    EntryKind {
        /// The user paid money in.
        Charge = "charge",
        /// The user spent some outside of a reservation.
        Use = "use",
        /// A reservation was paid.
        Payment = "payment",
        /// A payment was given back.
        Refund = "refund",
        /// A reward was credited.
        Reward = "reward",
    }

    /// How a claim went.
    ClaimStatus {
        /// The reward was granted.
        Success = "success",
        /// It was not.
        Failed = "failed",
    }

    /// What became of a hold.
    ReservationEventStatus {
        /// Paid; the seats are owned.
        Confirmed = "confirmed",
        /// Given up by its holder.
        Released = "released",
        /// Lapsed.
        Expired = "expired",
        /// Was confirmed, then given back.
        Cancelled = "cancelled",
    }

    /// The ends of a payment.
    PaymentEventStatus {
        /// Debited, and the seats are sold.
        Confirmed = "confirmed",
        /// Refused by the wallet or a rule.
        Declined = "declined",
        /// Taken back before it was confirmed.
        Voided = "voided",
        /// Was confirmed, then given back.
        Refunded = "refunded",
    }
}

/// Why an entry can't be read.
#[derive(Debug, thiserror::Error)]
pub enum EventDecodeError {
    /// Written by a newer release.
    #[error("schema version {0:?} is not known to this release")]
    Version(String),
    /// Not what the schema says.
    #[error("payload is not of schema v1: {0}")]
    Payload(#[from] rmp_serde::decode::Error),
    /// A whole payload, and then more.
    #[error("{0} bytes follow the payload")]
    Trailing(usize),
}

/// The events of one outbox entry, in order. `version` is the name of the entry's field.
///
/// # Errors
/// [`EventDecodeError`] for an unknown version and for anything that isn't exactly of the schema.
pub fn decode(version: &str, payload: &[u8]) -> Result<Vec<OutboxEvent>, EventDecodeError> {
    if version != VERSION {
        return Err(EventDecodeError::Version(version.to_owned()));
    }
    let mut reader = rmp_serde::Deserializer::new(payload);
    // An event nests three deep; what nests deeper isn't one and shall not use up the stack.
    reader.set_max_depth(8);
    let events = lua::list(&mut reader)?;
    match reader.get_ref().len() {
        0 => Ok(events),
        more => Err(EventDecodeError::Trailing(more)),
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::samples;
