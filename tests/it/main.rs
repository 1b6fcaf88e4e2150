//! Usher as its users, operators and neighbours meet it: on real servers that this run starts and stops by itself.
//!
//! One binary, a file a room. `support` keeps what they stand on.

mod best;
mod cancel;
mod entries;
mod journey;
mod kill;
mod lists;
mod payment;
mod reports;
mod retire;
mod support;
