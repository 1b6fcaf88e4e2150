//! Redis: the client, the keys, the scripts, the coalescer and the generations. The only room that names the driver.
//!
//! All contended state lives in Redis and changes only inside the scripts of `lua/`. A room's `store.rs` calls them through
//! [`Redis::call`], or through a [`Coalescer`] where many requests meet one entity.

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

pub use address::Address;
pub use args::Args;
pub use client::{Redis, Settings};
pub use coalescer::{Batch, Coalescer, MAX_BATCH};
pub use error::Error;
pub use generations::{Fence, Generations, Marks, bar};
pub use keys::{Keys, Place};
pub use look::{Ends, Part};
pub use outbox::Entry;
pub use pinned::{Holder, Pinned};
pub use pressure::{Level, Pressure};
pub use reply::{Reply, Words};
pub use retired::{Retired, millis};
pub use safety::{Memory, Reach};
pub use script::{Script, scripts};
