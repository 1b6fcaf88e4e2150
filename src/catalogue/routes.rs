//! Concerts over HTTP. The dates and seats, which need a place in line, are in the room of the seats.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{CatalogueService, Concert, Error};
use crate::http::cache::CachedForOneSecond;
use crate::http::path::PathParams;
use crate::http::problem::FieldError;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, QueueId};
use crate::time::UnixMillis;

/// The routes of the catalogue.
pub fn router() -> OpenApiRouter<Arc<CatalogueService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// A concert as everybody may see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Concert)]
pub(super) struct ConcertDto {
    id: ConcertId,
    title: String,
    queue_id: QueueId,
    hold_seconds: u32,
    max_seats_per_user: u32,
    cancel_until: Option<UnixMillis>,
}

impl From<&Concert> for ConcertDto {
    fn from(concert: &Concert) -> Self {
        Self {
            id: concert.id.clone(),
            title: concert.title.clone(),
            queue_id: concert.queue.clone(),
            hold_seconds: concert.hold_seconds,
            max_seats_per_user: concert.max_seats_per_user,
            cancel_until: concert.cancel_until.map(UnixMillis::from),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Concerts)]
struct ConcertsDto {
    items: Vec<ConcertDto>,
    next: Option<String>,
}

/// All concerts, and which queue admits to each.
#[utoipa::path(get, path = "/v1/concerts", tag = "catalogue", responses((status = 200, body = ConcertsDto)))]
async fn list(
    State(catalogue): State<Arc<CatalogueService>>,
) -> CachedForOneSecond<JsonBody<ConcertsDto>> {
    let items = catalogue.concerts().iter().map(|concert| ConcertDto::from(&**concert)).collect();
    CachedForOneSecond(JsonBody(ConcertsDto { items, next: None }))
}

/// One concert.
#[utoipa::path(get, path = "/v1/concerts/{concert}", tag = "catalogue", params(("concert" = ConcertId, Path)),
    responses((status = 200, body = ConcertDto), (status = 404, body = ProblemDetails)))]
async fn show(
    State(catalogue): State<Arc<CatalogueService>>,
    PathParams(id): PathParams<ConcertId>,
) -> Result<CachedForOneSecond<JsonBody<ConcertDto>>, ProblemDetails> {
    let concert = catalogue.concert(&id).ok_or(Error::NotFound)?;
    Ok(CachedForOneSecond(JsonBody(ConcertDto::from(&*concert))))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::not_found(),
            Error::InUse => Self::new(
                StatusCode::CONFLICT,
                "in_use",
                "The change would take away a seat that is held or sold.",
            ),
            Error::Archived => Self::new(
                StatusCode::CONFLICT,
                "in_use",
                "The sale is over and archived: it can't change.",
            ),
            Error::Unsound(flaws) => Self::invalid_request(
                flaws.into_iter().map(|(field, message)| FieldError { field, message }).collect(),
            ),
            Error::Queue(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}
