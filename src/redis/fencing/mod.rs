//! Fencing: keeps a Redis and a MySQL that do not belong together from being used together.
//!
//! - [`epochs`]: the epoch of each partition, stored in Redis and in MySQL. A script runs only
//!   under the epoch that this instance verified. Start reading here.
//! - [`fence_marks`]: reads and writes the fences in Redis.
//! - [`verification`]: whether the Redis that owns a partition is the one that was verified.
//! - [`pinned_connection`]: a connection that never reconnects, for work that must reach one Redis.
//!
//! Invariant: an empty, stale or foreign Redis never answers a script call with success. The checks
//! themselves, and the restore of a lost partition, are in `recovery/`.

mod epochs;
mod fence_marks;
mod pinned_connection;
mod verification;

pub use epochs::{FenceReading, PartitionEpochs, healing_fence, new_epoch, recovery_fence};
pub use fence_marks::FenceMarks;
pub use pinned_connection::{PartitionOwner, PinnedConnection};
pub(super) use verification::VerificationTracker;
