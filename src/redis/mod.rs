//! Redis: the client, key names, scripts, coalescer, topology and fencing. The only module that
//! names the driver.
//!
//! All contended state lives in Redis and changes only inside the scripts of `lua/`. The `store.rs`
//! of a domain calls them through [`RedisClient::call`], or through a [`Coalescer`] where many
//! requests concern one entity. Start reading at `client.rs`.
//!
//! - `client`, `script`, `keys`, `args`, `reply`: one script call, from the key names to the reply.
//! - `batch`, `coalescer`, `partition_names`: many requests in one script call.
//! - `cluster`: which server owns which partition; redirects.
//! - `fencing`: epochs, verification, pinned connections.
//! - `preflight`, `replication`, `memory`, `pressure`: what a server must provide, and when new
//!   work is refused.
//! - `record_version`: which releases can read the records.
//! - `replica_watch`: whether writes wait for every replica that may be promoted.
//! - `outbox`, `scan`, `purge_page`: plain reads and the reply of the scripts that purge.
//! - `instance_records`: which definitions each instance has loaded.

mod address;
mod args;
mod batch;
mod client;
mod cluster;
mod coalescer;
mod error;
mod fencing;
mod instance_records;
mod keys;
mod memory;
mod outbox;
mod partition_names;
mod preflight;
mod pressure;
mod purge_page;
mod record_version;
mod replica_watch;
mod replication;
mod reply;
mod scan;
mod script;

pub use address::RedisAddress;
pub use args::ScriptArgs;
pub use batch::{BatchScript, ScriptCoalescer, ScriptOperation};
pub use client::{KeptEntries, RedisClient, RedisClientSettings, ReplicationRequirement};
pub use coalescer::{BatchOperation, Coalescer, MAX_BATCH};
pub use error::Error;
pub use fencing::{
    FenceMarks, FenceReading, PartitionEpochs, PartitionOwner, PinnedConnection, healing_fence,
    new_epoch, recovery_fence,
};
pub use instance_records::VersionExchange;
pub use keys::{KeyBuilder, KeyScope};
pub use memory::RedisMemoryInfo;
pub use outbox::OutboxEntry;
pub use partition_names::PartitionNamesBatch;
pub use pressure::{MemoryPressure, PressureLevel};
pub use purge_page::{PurgePage, millis};
pub use record_version::{RECORD_VERSION, RecordVersion};
pub use replication::ReplicatedPartitions;
pub use reply::{ReplyCode, ReplyReader, ScriptReply};
pub use scan::{ScanPage, StreamEnds};
pub use script::{LuaScript, codes, constants, scripts};
