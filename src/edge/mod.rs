//! The edge: everything between a socket and the router of the domain modules.
//!
//! A connection enters through [`listener`], which limits how many connections there are and how
//! slow each may be ([`connection_timeouts`]). A request then passes the layers of [`layers`] in
//! one fixed order: request id, metrics, panics, timeout and cache headers (`middleware`), the body
//! limit, CORS, load shedding ([`shedding`]) and rate limits ([`limits`]). Event streams also need a
//! permit ([`stream_permits`]).
//!
//! The edge knows no domain module. It refuses requests with [`crate::http::ProblemDetails`], and
//! its only state is in memory: rate limit buckets, permits and counters.

pub mod admin_key;
pub mod challenge;
pub mod compression;
mod connection_timeouts;
pub mod cors;
pub mod file_descriptors;
pub mod health;
pub mod layers;
pub mod limits;
pub mod listener;
mod middleware;
mod request_metrics;
pub mod shedding;
pub mod stream_permits;
pub mod unexpected_body;
