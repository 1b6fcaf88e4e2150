//! Usher as its users, operators and neighbours meet it: on real servers that this run starts and stops by itself.
//!
//! One binary, a file a room. `support` keeps what they stand on.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

mod audit;
mod bad_input;
mod best;
mod cancel;
mod coupon_payments;
mod coupons;
mod dead_letters;
mod definitions;
mod durable;
mod entries;
mod failpoints;
mod faults;
mod giveaways_edges;
mod giveaways_kill;
mod history;
mod journey;
mod kill;
mod lists;
mod nginx;
mod outbox;
mod payment;
mod payment_faults;
mod pressure;
mod process;
mod queue;
mod queue_model;
mod races;
mod races_kill;
mod relay;
mod reports;
mod retire;
mod rewards;
mod seats;
mod support;
mod surface;
mod windows;
mod writer;
