//! Idempotency keys: a key of a user has one effect, and every repetition gets the first answer.
//!
//! The keys of a user are stored in the partition of the user (the hash `idempotency`, by user and
//! key, for 24 hours), so a key can be used for one request only. The wallet's scripts read and
//! write the record in the same call as their effect. A payment, whose effect is in another
//! partition, first binds its key to the payment's id.

mod store;

use crate::ids::UserId;
use crate::redis::{Coalescer, Error, RedisClient, ScriptCoalescer, ScriptOperation};

pub use store::BindOutcome;

/// The most requests that wait for one partition in one instance.
const MAX_WAITING_REQUESTS: usize = 16_384;

/// A request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRequest {
    pub user: UserId,
    /// The key, 1–128 visible ASCII characters.
    pub key: String,
    /// A digest of method, path and body.
    pub fingerprint: [u8; 16],
}

pub struct IdempotencyService {
    redis: RedisClient,
    bind: ScriptCoalescer<store::BindBatch>,
}

impl IdempotencyService {
    pub fn new(redis: RedisClient) -> Self {
        Self {
            bind: Coalescer::new(
                ScriptOperation::new(&redis, store::BindBatch),
                MAX_WAITING_REQUESTS,
            ),
            redis,
        }
    }

    /// Binds a key to the id of what its request creates, or returns what it was bound to before.
    pub async fn bind(
        &self,
        keyed: KeyedRequest,
        resource: [u8; 16],
    ) -> Result<BindOutcome, Error> {
        let partition = self.redis.keys().partition(keyed.user.slot());
        self.bind.submit(partition, store::KeyBinding { keyed, resource }).await
    }

    /// Releases a key whose request created nothing and never will.
    pub async fn release(&self, keyed: &KeyedRequest, resource: [u8; 16]) -> Result<(), Error> {
        store::release(&self.redis, keyed, resource).await
    }
}
