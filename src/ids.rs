//! Identifiers: validated when they are parsed, so that all other code can rely on their form.
//!
//! There are three kinds. Names are chosen by an operator (queue, concert, schedule, coupon, reward)
//! and match `[A-Za-z0-9_-]{1,64}`, so that none can put a brace, a colon or a NUL into a Redis
//! key. Service ids (reservation, payment, ledger entry, coupon issue, reward claim) are UUIDs of
//! version 8 that contain the hash slot of their entity, so an id alone leads to its partition. Ids
//! of users are strings of another service ([`UserName`]), stored as 16 bytes ([`UserId`]).

mod reference_key;
mod user;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::partition::HashSlot;

pub use reference_key::ReferenceKey;
pub use user::{UserId, UserName};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("must match [A-Za-z0-9_-]{{1,64}}")]
    Name,
    /// Not a UUID in hyphenated form.
    #[error("must be a UUID")]
    Uuid,
    #[error("must be 1 to 128 visible ASCII characters without spaces")]
    User,
}

fn check_name(text: &str) -> Result<(), InvalidId> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(InvalidId::Name)
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
        #[schema(value_type = String, pattern = "^[A-Za-z0-9_-]{1,64}$", example = "demo")]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub fn slot(&self) -> HashSlot {
                HashSlot::of(self.0.as_bytes())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check_name(text).map(|()| Self(text.into()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// A queue.
    QueueId,
    /// A concert.
    ConcertId,
    /// One date of a concert.
    ScheduleId,
    /// A coupon campaign.
    CouponId,
    /// A once-per-user reward.
    RewardCode,
    /// An endpoint of another system.
    WebhookId,
}

macro_rules! uuids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, utoipa::ToSchema)]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(Uuid);

        impl $name {
            /// The 16 bytes that Redis and MySQL store.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The plain UUID, for binding in SQL statements.
            pub fn uuid(self) -> Uuid {
                self.0
            }

            /// Parses the 16 bytes that Redis or MySQL store.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                // Only the hyphenated form: the crate also accepts braces and URNs, and an id must
                // have one spelling.
                if text.len() != 36 {
                    return Err(InvalidId::Uuid);
                }
                text.parse().map(Self).map_err(|_| InvalidId::Uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        /// Text in JSON, 16 bytes in MessagePack.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() {
                    to.collect_str(&self.0)
                } else {
                    to.serialize_bytes(self.0.as_bytes())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    from.deserialize_bytes(SixteenBytes).map(Self)
                }
            }
        }
    )*};
}

/// Lua's MessagePack has one string type, so 16 bytes that are valid UTF-8 arrive as text.
struct SixteenBytes;

impl Visitor<'_> for SixteenBytes {
    type Value = Uuid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sixteen bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Uuid, E> {
        Uuid::from_slice(bytes).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Uuid, E> {
        self.visit_bytes(text.as_bytes())
    }
}

uuids! {
    /// Seats that one user holds or bought. Contains the slot of its queue.
    ReservationId,
    /// The payment of one reservation. Contains the slot of its queue.
    PaymentId,
    /// One entry of a wallet's ledger. Contains the slot of its user.
    EntryId,
    /// The issue of one coupon to one user. Contains the slot of its coupon.
    IssueId,
    /// One attempt to claim a reward. Contains the slot of its user.
    ClaimId,
    /// Work in the background. Contains the slot of what it is about.
    JobId,
}

/// The digest of a request with an idempotency key: method, path and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RequestFingerprint(#[serde(deserialize_with = "sixteen_bytes")] [u8; 16]);

impl RequestFingerprint {
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

fn sixteen_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
    from.deserialize_bytes(SixteenBytes).map(Uuid::into_bytes)
}

macro_rules! slotted {
    ($($name:ident),*) => {$(
        impl $name {
            /// A new random id that contains `slot`.
            pub fn new(slot: HashSlot) -> Self {
                Self(slotted_uuid(slot))
            }

            pub fn slot(self) -> HashSlot {
                slot_of(self.0)
            }
        }
    )*};
}

slotted!(ReservationId, PaymentId, EntryId, IssueId, ClaimId, JobId);

/// UUID version 8 (RFC 9562, section 5.8): 48 bits of milliseconds, so that indexes grow at their
/// end; 12 bits of hash slot; 62 random bits. The time is only for ordering and is never read as a
/// clock.
#[expect(clippy::disallowed_methods, reason = "only for ordering")]
fn slotted_uuid(slot: HashSlot) -> Uuid {
    let mut bytes: [u8; 16] = rand::random();
    let millis = chrono::Utc::now().timestamp_millis().to_be_bytes();
    bytes[..6].copy_from_slice(&millis[2..]);
    bytes[6..8].copy_from_slice(&slot.get().to_be_bytes());
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn slot_of(uuid: Uuid) -> HashSlot {
    let bytes = uuid.as_bytes();
    HashSlot::from_low_bits(u16::from_be_bytes([bytes[6], bytes[7]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_reject_characters_that_could_change_a_key() {
        for bad in ["", "a b", "a{b", "a}b", "a:b", "a\0b", "ä", &"x".repeat(65)] {
            assert_eq!(bad.parse::<QueueId>(), Err(InvalidId::Name), "{bad:?}");
        }
        assert_eq!("Demo_2026-a".parse::<QueueId>().unwrap().as_str(), "Demo_2026-a");
    }

    #[test]
    fn uuids_have_one_spelling() {
        for bad in
            ["", "x", "{00000000-0000-4000-8000-000000000001}", "00000000000040008000000000000001"]
        {
            assert_eq!(bad.parse::<ReservationId>(), Err(InvalidId::Uuid), "{bad:?}");
        }
    }

    #[test]
    fn service_id_contains_its_slot() {
        for slot in [0, 1, 17, 4095] {
            let slot = HashSlot::from_low_bits(slot);
            let id = ReservationId::new(slot);
            assert_eq!(id.slot(), slot);
            assert_eq!(id.uuid().get_version_num(), 8);
            assert_eq!(id.to_string().parse::<ReservationId>().unwrap(), id);
        }
    }

    #[test]
    fn message_pack_accepts_sixteen_bytes_also_as_text() {
        for uuid in [Uuid::from_bytes(*b"abcdefghijklmnop"), Uuid::from_bytes([0xff; 16])] {
            // A raw string of sixteen bytes, as Lua's cmsgpack writes it: fixstr 0xb0.
            let mut packed = vec![0xb0];
            packed.extend_from_slice(uuid.as_bytes());
            assert_eq!(rmp_serde::from_slice::<UserId>(&packed).unwrap(), UserId::from(uuid));
        }
    }
}
