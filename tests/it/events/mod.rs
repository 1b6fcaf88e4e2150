//! Events for other systems.

mod feed;
pub(crate) mod reader;
mod receiver;
mod webhooks;
