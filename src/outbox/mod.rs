//! The outbox: every durable fact on its way from Redis to MySQL.
//!
//! Each partition has a stream in Redis. A script that changes durable state appends one entry in the same step, numbered by the
//! partition's sequence `n` without a gap, so neither can exist without the other. The [`OutboxWriter`] carries entries over: it locks the
//! partition's row in `outbox_checkpoints`, reads what stands after it, applies the events as multi-row statements, moves the
//! checkpoint and commits; only then are the entries trimmed. MySQL holds the offset, so a crash at any point repeats nothing and
//! loses nothing, and the row lock keeps any number of writers apart.
//!
//! - [`event`]: what an entry says, by schema version.
//! - `apply`: many entries folded into what MySQL has to change; no IO.
//! - `sql`: the statements.
//! - `pass`: one transaction over many partitions.
//! - [`tail`]: what MySQL does not have yet, for lists that must not lack it.
//! - [`writer`]: the loop around it: when to pass, what to repeat, whom to stop.
//! - `barrier`: how a reader of MySQL waits for what Redis has told already.
//! - `ack`: how an answer waits until MySQL has what it tells; `nudge`: the rooms' handle on both.
//!
//! - [`pressure`]: what is refused while MySQL is behind.
//! - [`dead_letters`]: what MySQL can't take, put aside with its cause.
//!
//! Deliberately absent: a consumer group, acknowledgements, and any way to skip an entry unseen. A gap stops its partition and raises an alarm; the
//! others go on.

mod apply;
mod barrier;
pub mod dead_letters;
mod durability;
pub mod event;
mod flush;
mod lua;
pub mod pending_events;
pub mod pressure;
mod sql;
pub mod writer;
mod writer_handle;

pub use barrier::wait_until_written;
pub use durability::DurabilitySettings;
pub use writer::OutboxWriter;
pub use writer_handle::{DurabilityWait, WriterHandle};
