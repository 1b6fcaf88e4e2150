//! Idempotency keys: one effect for each key of a user, and the first answer for every repeat.
//!
//! A user's keys live in the partition of the user (`idempotency`, by user and key, kept for 24 hours), so a key is one key whatever it was used
//! for. The scripts of the wallet read and write the record in the same call as their effect; a payment, whose effect lies
//! elsewhere, binds its key to the payment's id before it begins.

mod store;

use crate::ids::UserId;
use crate::redis::{Coalescer, Error, RedisClient, ScriptCoalescer, ScriptOperation};

pub use store::BindOutcome;

/// Requests that may wait for one partition in one instance.
const MAX_WAITING: usize = 16_384;

/// A request under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRequest {
    /// Whose key it is.
    pub user: UserId,
    /// The key, 1–128 visible ASCII characters.
    pub key: String,
    /// A digest of method, path and body.
    pub fingerprint: [u8; 16],
}

/// The façade of the room.
pub struct IdempotencyService {
    redis: RedisClient,
    bind: ScriptCoalescer<store::BindBatch>,
}

impl IdempotencyService {
    /// Keys in Redis.
    pub fn new(redis: RedisClient) -> Self {
        Self {
            bind: Coalescer::new(ScriptOperation::new(&redis, store::BindBatch), MAX_WAITING),
            redis,
        }
    }

    /// Binds a key to the thing its request is about to make, or tells what it was bound to before.
    pub async fn bind(&self, keyed: KeyedRequest, thing: [u8; 16]) -> Result<BindOutcome, Error> {
        let partition = self.redis.keys().partition(keyed.user.slot());
        self.bind.submit(partition, store::KeyBinding { keyed, thing }).await
    }

    /// Frees a key whose request made nothing and never can.
    pub async fn release(&self, keyed: &KeyedRequest, thing: [u8; 16]) -> Result<(), Error> {
        store::release(&self.redis, keyed, thing).await
    }
}
