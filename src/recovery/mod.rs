//! Recovery: which partitions may serve.
//!
//! MySQL's checkpoint and Redis' marks must agree before a partition serves: the same generation, and an outbox at least as far as the checkpoint.
//! Anything else is a Redis that is empty, older than MySQL or not ours; its partition answers 503 `recovering` and sells nothing.

mod open;

pub use open::{Error, run_verifier, verify};
