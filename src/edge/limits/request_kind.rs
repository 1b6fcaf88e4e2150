//! What a request is for, as far as limits and shedding care.

use axum::extract::MatchedPath;
use axum::http::{Extensions, Method};

/// What a request is for. Each has buckets of its own, so that whoever polls too often may still pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Asks for a place in line.
    Join,
    /// Asks how long yet.
    Poll,
    /// Looks for seats and holds them.
    Book,
    /// Pays, or gets the money back.
    Pay,
    /// Everything else.
    Other,
}

impl RequestKind {
    /// All of them, in the order in which they are shed.
    pub const ALL: [Self; 5] = [Self::Join, Self::Poll, Self::Other, Self::Book, Self::Pay];

    /// The name that metrics have.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Poll => "poll",
            Self::Book => "book",
            Self::Pay => "pay",
            Self::Other => "other",
        }
    }
}

/// Tells kinds by method and route. The kit knows no room, so the table is handed in.
pub type RequestClassifier = fn(&Method, &str) -> RequestKind;

/// The kind of a request that was routed; [`RequestKind::Other`] of one that was not.
pub(in crate::edge) fn kind_of(
    kinds: RequestClassifier,
    method: &Method,
    extensions: &Extensions,
) -> RequestKind {
    extensions
        .get::<MatchedPath>()
        .map_or(RequestKind::Other, |route| kinds(method, route.as_str()))
}
