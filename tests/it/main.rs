//! Usher as its users, operators and neighbours meet it: on real servers that this run starts and stops by itself.
//!
//! One binary, a file a room. `support` keeps what they stand on.

mod journey;
mod kill;
mod payment;
mod reports;
mod support;
