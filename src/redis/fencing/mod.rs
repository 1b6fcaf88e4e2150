//! What keeps Redis and MySQL from being used together when they do not belong together.
//!
//! - [`epochs`]: the epoch of each partition, stored in both. A script runs only under the epoch that this
//!   instance verified.
//! - [`verification`]: whether the Redis that owns a partition is the one that was verified.
//! - [`pinned_connection`]: a connection that never reconnects, for work that must reach one Redis only.

mod epochs;
mod pinned_connection;
mod verification;

pub use epochs::{FenceMarks, FenceReading, PartitionEpochs, bar};
pub use pinned_connection::{PartitionHolder, PinnedConnection};
pub(super) use verification::VerificationTracker;
