//! HTTP building blocks of every handler: extractors, problems, pages and OpenAPI documents.
//!
//! Handlers read their input with the extractors of [`json`], [`query`], [`path`], [`identity`] and
//! [`idempotency`]. Each of them refuses with a [`problem::ProblemDetails`], the only form of an
//! error response. The module knows neither a domain module nor the edge: what an extractor shares
//! with the edge ([`identity::IdentityResolver`], [`user_limit::UserRateLimit`],
//! [`user_recorder::UserRecorderExtension`]) travels in the
//! extensions of the request, so that extractors work with any router state.

pub mod accept_encoding;
pub mod cache;
pub mod definition_page;
pub mod entity_tag;
#[cfg(test)]
pub(crate) mod future_size;
pub mod idempotency;
pub mod identity;
pub mod json;
pub mod jwt;
pub mod merge_patch;
pub mod openapi_routes;
pub mod page;
pub mod path;
pub mod peer;
pub mod preconditions;
pub mod problem;
pub mod query;
pub mod rate_limit;
pub mod reason;
pub mod recorded_change;
pub mod request_id;
pub mod secret;
pub mod shared_event;
mod store_error;
mod unique_keys;
pub mod user_limit;
pub mod user_recorder;

pub use json::{JsonBody, JsonBodyWithBytes, OptionalJsonBody};
pub use problem::ProblemDetails;
