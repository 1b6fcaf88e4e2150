//! The outbox: how every durable change gets from Redis to MySQL.
//!
//! Each partition has a stream in Redis. A script that changes durable state appends one entry in
//! the same atomic step. Entries are numbered by the partition's sequence `n` without a gap. The
//! [`OutboxWriter`] locks the partition's row in `outbox_checkpoints`, reads the entries after the
//! checkpoint, applies their events as multi-row statements, moves the checkpoint and commits. The
//! entries are then kept for a while and trimmed later: when MySQL loses its last transactions (a
//! failover, a restored backup), the checkpoint goes back with the rows, and the writer writes the
//! same entries again. The checkpoint is in the same transaction as the rows, so a crash
//! at any point loses nothing and applies nothing twice; the row lock separates any number of
//! writers.
//!
//! Start reading at `flush`.
//!
//! - [`event`], `lua`: the events of an entry, by schema version.
//! - [`event_type`], `event_log`: what is delivered to other systems.
//! - `apply`: merges many entries into the rows that MySQL must change; no IO.
//! - `sql`, `reward_claims`: the statements.
//! - `flush`: one transaction over many partitions.
//! - `store`: records in Redis what MySQL has, and trims.
//! - [`writer`]: the loop around it: when to flush, what to repeat, which partition to stop.
//! - [`dead_letters`]: events that MySQL rejects.
//! - [`pending_events`], `barrier`: how a list that is read from MySQL includes the newest changes.
//! - `durability`, `writer_handle`: how an answer waits until MySQL has the change.
//! - [`pressure`]: what is refused while MySQL is behind.
//!
//! There is deliberately no consumer group, no acknowledgement, and no way to skip an entry without
//! a dead letter. A gap in the sequence stops its partition and raises an alert; the others go on.

mod apply;
mod barrier;
pub mod dead_letters;
mod durability;
pub mod event;
mod event_decode;
mod event_log;
pub mod event_type;
mod flush;
mod lua;
#[cfg(test)]
mod lua_packer;
mod payment_event;
mod payment_sql;
pub mod pending_events;
pub mod pressure;
mod reward_claims;
mod sql;
mod store;
pub mod writer;
mod writer_handle;

pub use barrier::wait_until_written;
pub use durability::DurabilitySettings;
pub use writer::OutboxWriter;
pub use writer_handle::{DurabilityWait, WriterHandle};
