//! Usher as its users, operators and neighbours meet it: on real servers that this run starts and stops by itself.
//!
//! One binary, a file a room. `support` keeps what they stand on.

#![recursion_limit = "256"]
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]
#![allow(clippy::disallowed_methods, reason = "tests live on the servers' machine, and wait")]

mod bad_input;
mod coupons;
mod edge;
mod faults;
mod journey;
mod operations;
mod outbox;
mod payments;
mod queue;
mod recovery;
mod reference;
mod rewards;
mod roles;
mod seats;
mod simultaneous_requests;
mod support;
mod wallet;
