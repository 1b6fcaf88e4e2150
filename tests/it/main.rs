//! Usher as its users, operators and neighbours meet it: on real servers that this run starts and stops by itself.
//!
//! One binary, a file a room. `support` keeps what they stand on.

#![recursion_limit = "256"]
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]
#![allow(clippy::disallowed_methods, reason = "tests live on the servers' machine, and wait")]

mod acl;
mod admin_log;
mod audit;
mod backup;
mod bad_input;
mod best;
mod canaries;
mod cancel;
mod cluster;
mod connections;
mod coupon_payments;
mod coupons;
mod crowd;
mod dashboards;
mod dead_letters;
mod definitions;
mod doors;
mod durable;
mod entries;
mod failpoints;
mod faults;
mod giveaways_edges;
mod giveaways_kill;
mod history;
mod identity;
mod journey;
mod kill;
mod lists;
mod nginx;
mod outbox;
mod payment;
mod payment_faults;
mod pressure;
mod process;
mod prometheus;
mod queue;
mod queue_model;
mod races;
mod races_kill;
mod recovery;
mod recovery_faults;
mod recovery_line;
mod recovery_orphans;
mod recovery_size;
mod reference;
mod relay;
mod repartition;
mod reports;
mod retire;
mod rewards;
mod roles;
mod rolling;
mod seats;
mod sentinel;
mod settings;
mod skew;
mod store_tls;
mod streams;
mod support;
mod surface;
mod top;
mod waiting;
mod windows;
mod writer;
