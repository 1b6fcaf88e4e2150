//! Usher: admission and booking for sales with far more buyers than seats.

pub mod app;
pub mod audit;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod coupon_terms;
pub mod coupons;
pub mod definition;
pub mod dev;
pub mod edge;
pub mod events;
pub mod failpoint;
#[cfg(test)]
mod fuzz_tests;
pub mod http;
pub mod idempotency;
pub mod ids;
pub mod money;
pub mod mysql;
pub mod outbox;
pub mod partition;
pub mod payment;
pub mod queue;
pub mod recovery;
pub mod redis;
pub mod rewards;
pub mod seats;
pub mod shutdown;
pub mod store_error;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod users;
pub mod wallet;
pub mod web;
pub mod webhooks;
