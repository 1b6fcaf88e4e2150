//! The HTTP kit: everything between a socket and a room's handler. It knows no room and keeps no state but counters of rates.
//!
//! A connection enters through [`listener`], which bounds how many there are and how slowly they may speak. A request then passes
//! the layers of [`layers`] in one fixed order: request id, metrics, panics, the timeout, cache headers, limits. Handlers
//! take their input by the extractors of [`json`], [`query`], [`path`], [`identity`] and [`idempotency`], which all refuse with a
//! [`problem::Problem`], the only form in which anything here says no.
//!
//! What the layers share ([`identity::Callers`], [`limits::Limits`]) travels in request extensions, so that extractors work with
//! any router state.

pub mod admin;
mod around;
pub mod cache;
pub mod challenge;
pub mod cors;
pub mod descriptors;
pub mod health;
pub mod idempotency;
pub mod identity;
pub mod json;
pub mod jwt;
pub mod layers;
pub mod limits;
pub mod listener;
pub mod openapi;
pub mod page;
pub mod path;
pub mod peer;
pub mod problem;
pub mod query;
pub mod request_id;
mod requests;
pub mod secret;
pub mod shedding;
mod stall;
mod stores;
#[cfg(test)]
pub(crate) mod weight;

pub use json::{JsonBody, JsonBodyWithBytes, UncheckedBody};
pub use problem::ProblemDetails;
