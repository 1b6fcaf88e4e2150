//! Redis: the client, the keys, the scripts, the coalescer and the generations. The only room that names the driver.
//!
//! All contended state lives in Redis and changes only inside the scripts of `lua/`. A room's `store.rs` calls them through
//! [`RedisClient::call`], or through a [`Coalescer`] where many requests meet one entity.

mod address;
mod args;

mod client;
mod coalescer;
mod elsewhere;
mod error;
mod generations;
mod keys;
mod look;
mod node;
mod outbox;
mod pinned;
mod pressure;
mod reply;
mod retired;
mod roll;
mod safety;
mod script;
mod servers;
mod trust;

pub use address::RedisAddress;
pub use args::ScriptArgs;
pub use client::{RedisClient, RedisClientSettings};
pub use coalescer::{BatchOperation, Coalescer, MAX_BATCH};
pub use error::Error;
pub use generations::{FenceMarks, FenceReading, PartitionEpochs, bar};
pub use keys::{KeyBuilder, KeyScope};
pub use look::{ScanPage, StreamEnds};
pub use outbox::OutboxEntry;
pub use pinned::{PartitionHolder, PinnedConnection};
pub use pressure::{MemoryPressure, PressureLevel};
pub use reply::{ReplyReader, ScriptReply};
pub use retired::{EndedPage, millis};
pub use safety::{RedisMemoryInfo, ReplicationRequirement};
pub use script::{LuaScript, scripts};
