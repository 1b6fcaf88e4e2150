//! The public routes of the catalogue. The routes of schedules and seats need an admission and are
//! in `seats/routes.rs`.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{CatalogueService, Concert, Error};
use crate::http::cache::CachedForOneSecond;
use crate::http::path::PathParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, QueueId};
use crate::time::UnixMillis;

pub fn router() -> OpenApiRouter<Arc<CatalogueService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// The public description of a concert.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Concert)]
pub(super) struct ConcertDto {
    id: ConcertId,
    title: String,
    /// The queue that admits users to this concert.
    queue_id: QueueId,
    /// How long a hold lasts, in seconds.
    hold_seconds: u32,
    /// For how long a payment by an external provider keeps its seats, in seconds.
    payment_seconds: u32,
    /// How many seats a user can hold and own in total.
    max_seats_per_user: u32,
    /// Confirmed reservations can be cancelled until this time. Null means until the show starts.
    cancel_until: Option<UnixMillis>,
}

impl From<&Concert> for ConcertDto {
    fn from(concert: &Concert) -> Self {
        Self {
            id: concert.id.clone(),
            title: concert.title.clone(),
            queue_id: concert.queue.clone(),
            hold_seconds: concert.hold_seconds,
            payment_seconds: concert.payment_seconds,
            max_seats_per_user: concert.max_seats_per_user,
            cancel_until: concert.cancel_until.map(UnixMillis::from),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Concerts)]
struct ConcertsDto {
    items: Vec<ConcertDto>,
    /// Always null: the list has one page.
    next: Option<String>,
}

/// List all concerts
///
/// Each concert names the queue that admits users to it. The response is at most one second old.
#[utoipa::path(
    get,
    path = "/v1/concerts",
    operation_id = "listConcerts",
    tag = "catalogue",
    responses((status = 200, body = ConcertsDto))
)]
async fn list(
    State(catalogue): State<Arc<CatalogueService>>,
) -> CachedForOneSecond<JsonBody<ConcertsDto>> {
    let items = catalogue.concerts().iter().map(|concert| ConcertDto::from(&**concert)).collect();
    CachedForOneSecond(JsonBody(ConcertsDto { items, next: None }))
}

/// Get a concert
///
/// The response is at most one second old.
#[utoipa::path(
    get,
    path = "/v1/concerts/{concert}",
    operation_id = "getConcert",
    tag = "catalogue",
    params(("concert" = ConcertId, Path)),
    responses((status = 200, body = ConcertDto), (status = 404, body = ProblemDetails))
)]
async fn show(
    State(catalogue): State<Arc<CatalogueService>>,
    PathParams(id): PathParams<ConcertId>,
) -> Result<CachedForOneSecond<JsonBody<ConcertDto>>, ProblemDetails> {
    let concert = catalogue.find_concert(&id).await?;
    Ok(CachedForOneSecond(JsonBody(ConcertDto::from(&*concert))))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::not_found(),
            Error::InUse(items) => {
                Self::in_use("Some seats that this change removes are held or sold.", &items)
            }
            Error::PreconditionFailed => Self::precondition_failed(),
            Error::NotWritten => Self::in_use(
                "The queue of the schedule has changes that MySQL does not have yet. Try again.",
                &[],
            ),
            Error::Archived => {
                Self::in_use("The concert is archived and can no longer change.", &[])
            }
            Error::Invalid(violations) => Self::invalid_definition(violations),
            Error::Queue(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}
