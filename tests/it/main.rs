//! Usher as its users, operators and neighbours meet it: on real servers that this run starts and stops by itself.
//!
//! One binary, a file a room. `support` keeps what they stand on.

mod bad_input;
mod coupon_payments;
mod coupons;
mod definitions;
mod giveaways_kill;
mod journey;
mod kill;
mod payment;
mod queue;
mod reports;
mod rewards;
mod seats;
mod support;
