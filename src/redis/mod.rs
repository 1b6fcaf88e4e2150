//! Redis: the client, the keys, the scripts, the coalescer and the generations. The only room that names the driver.
//!
//! All contended state lives in Redis and changes only inside the scripts of `lua/`. A room's `store.rs` calls them through
//! [`RedisClient::call`], or through a [`Coalescer`] where many requests meet one entity.

mod address;
mod args;
mod batch;
mod client;
mod cluster;
mod coalescer;
mod error;
mod fencing;
mod keys;
mod memory;
mod outbox;
mod preflight;
mod pressure;
mod purge_page;
mod replication;
mod reply;
mod scan;
mod script;

pub use address::RedisAddress;
pub use args::ScriptArgs;
pub use batch::{BatchScript, ScriptCoalescer, ScriptOperation};
pub use client::{RedisClient, RedisClientSettings};
pub use coalescer::{BatchOperation, Coalescer, MAX_BATCH};
pub use error::Error;
pub use fencing::{
    FenceMarks, FenceReading, PartitionEpochs, PartitionHolder, PinnedConnection, bar,
};
pub use keys::{KeyBuilder, KeyScope};
pub use memory::RedisMemoryInfo;
pub use outbox::OutboxEntry;
pub use pressure::{MemoryPressure, PressureLevel};
pub use purge_page::{EndedPage, millis};
pub use replication::ReplicationRequirement;
pub use reply::{ReplyCode, ReplyReader, ScriptReply};
pub use scan::{ScanPage, StreamEnds};
pub use script::{LuaScript, codes, constants, scripts};
