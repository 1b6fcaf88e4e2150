//! Which server owns which partition, and the connections to those servers.
//!
//! - [`topology`]: asks Sentinels or cluster nodes for the owners. Start reading here.
//! - [`slot_table`]: the owners as one immutable table, and the parsing of what nodes report.
//! - [`redirect`]: how long a call searches for the owner after a redirect (MOVED, ASK, READONLY).
//! - [`replicas`]: how many replicas may be promoted.
//! - [`routing`]: sends commands to the owner, and refreshes the slot table.
//! - [`node`]: the connections to one server.
//!
//! Invariant: a partition that changes its owner becomes unverified before the new owner is
//! visible, so no call reaches a server that was not checked against MySQL (see `redis/fencing/`).

mod node;
mod redirect;
mod replicas;
mod routing;
mod slot_table;
mod topology;

pub(super) use node::RedisNode;
pub(super) use redirect::{CALL_PATIENCE, NO_PATIENCE, READ_PATIENCE, RedirectSearch};
pub(super) use topology::ServerTopology;
