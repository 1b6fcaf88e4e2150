//! The kind of a request, for rate limits and load shedding.

use axum::extract::MatchedPath;
use axum::http::{Extensions, Method};

/// The purpose of a request. Each kind has separate buckets, so that a user who polls too often can
/// still pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Joins a queue.
    Join,
    /// Reads a ticket or a queue.
    Poll,
    /// Reads seats and holds them.
    Book,
    /// Pays, or cancels a paid reservation.
    Pay,
    /// All other requests.
    Other,
}

impl RequestKind {
    /// All kinds, in the order in which they are shed.
    pub const ALL: [Self; 5] = [Self::Join, Self::Poll, Self::Other, Self::Book, Self::Pay];

    /// The value of the metrics label `kind`.
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

/// Returns the kind of a method and route. The edge does not know the routes of the domain modules,
/// so the caller supplies it.
pub type RequestClassifier = fn(&Method, &str) -> RequestKind;

/// The kind of a request. [`RequestKind::Other`] for an unknown path.
pub(in crate::edge) fn request_kind(
    classify: RequestClassifier,
    method: &Method,
    extensions: &Extensions,
) -> RequestKind {
    extensions
        .get::<MatchedPath>()
        .map_or(RequestKind::Other, |route| classify(method, route.as_str()))
}
