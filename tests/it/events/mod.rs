//! Events for other systems.

mod feed;
pub(crate) mod reader;
