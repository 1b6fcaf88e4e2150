//! Recovery: which partitions may serve, and whether what is promised holds ([`audit`]).
//!
//! MySQL's checkpoint and Redis' marks must agree before a partition serves: the same generation, and an outbox at least as far as the checkpoint.
//! Anything else is a Redis that is empty, older than MySQL or not ours; its partition answers 503 `recovering` and sells nothing.

pub mod audit;
mod audit_routes;
mod open;

pub use audit_routes::router as audit_router;
pub use open::{Error, run_verifier, verify};
