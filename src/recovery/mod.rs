//! Recovery: which partitions may serve, laying back those that may not, and whether what is promised holds ([`audit`]).
//!
//! MySQL's checkpoint and Redis' marks must agree before a partition serves: the same generation, and an outbox at least as far as the checkpoint
//! ([`open`]). Anything else is a Redis that is empty, older than MySQL or not ours; its partition answers 503 `recovering` and sells nothing until it is laid
//! back from MySQL under a new generation ([`recover`]), while the others serve.
//!
//! - [`open`]: verifies the fences, at start and whenever what was verified is in doubt.
//! - [`run`]: the verifier's loop, which also starts recoveries.
//! - [`recover`]: one partition, from the bar to the new generation.
//! - [`repartition`]: another count of partitions, while nobody serves.
//! - [`restore`]: what is laid, one small file for each room's state.
//! - [`reconcile`]: what a payment left behind in another partition.

mod error;
mod open;
mod reconcile;
mod reconcile_sql;
mod reconcile_store;
mod recover;
mod repartition;
mod restore;
mod run;
mod sql;

pub use error::Error;
pub use open::{FenceState, VerificationOutcome, verify};
pub use reconcile::{ReconcileSummary, StoreReconciler, run_reconciler as run_settling};
pub use recover::{PartitionRecovery, RecoveryOutcome};
pub use run::run_verifier;
