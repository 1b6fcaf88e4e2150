//! Integration tests: Usher on real Redis and MariaDB servers, which the test run starts and stops.
//!
//! One binary with one folder per domain. `support` holds the servers, the client and the audit.

#![recursion_limit = "256"]
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests run beside the servers and use the machine's clock"
)]

mod bad_input;
mod coupons;
mod edge;
mod events;
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
