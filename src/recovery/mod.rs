//! Recovery: decides which partitions may serve, and restores those that may not from MySQL.
//!
//! Invariant: a partition serves only while MySQL's checkpoint and Redis agree, that is, both have
//! the same epoch and the outbox is at least as far as the checkpoint. Anything else is a Redis
//! that is empty, stale or foreign. Its partition answers 503 `recovering` until it is restored
//! under a new epoch; the other partitions serve. A partition that MySQL had further than it has
//! now answers 503 as well, until the writer has written the lost part again.
//!
//! What a recovery did is recorded in the table `recoveries`. Start reading at `verify`.
//!
//! - `verify`: compares the fences, at the start and after every invalidation.
//! - `healing`: a MySQL that went back.
//! - `verifier`: the loop around it, which also starts restores.
//! - `restore_partition`: the restore of one partition, from the recovery fence to the new epoch.
//! - `restore`: what is restored, one file for each domain.
//! - `raise_records`: the version of the records in Redis.
//! - `reconcile`: repairs payments that crossed partitions when one of them was restored.
//! - `repartition`: changes the number of partitions while no instance serves.

mod error;
mod healing;
mod raise_records;
mod reconcile;
mod reconcile_sql;
mod reconcile_store;
mod repartition;
mod restore;
mod restore_partition;
mod sql;
mod verifier;
mod verify;

pub use error::Error;
pub use raise_records::raise_record_versions;
pub use reconcile::{ReconcileSummary, StoreReconciler, run_reconciler};
pub use restore_partition::{PartitionRecovery, RecoveryOutcome};
pub use verifier::run_verifier;
pub use verify::{FenceState, VerificationOutcome, verify};
