//! Concerts for operators.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::ConcertDto;
use super::{CatalogueService, Concert, ConcertSchedule};
use crate::http::path::NewPathParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, QueueId};

/// The operators' routes of the catalogue.
pub fn router() -> OpenApiRouter<Arc<CatalogueService>> {
    OpenApiRouter::new().routes(routes!(put))
}

/// A concert as an operator defines it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConcertDefinition {
    /// 1–255 characters.
    title: String,
    /// The queue that admits to it; made when missing. Default: of the concert's id.
    queue_id: Option<QueueId>,
    /// How long a hold lasts, 1…86,400; default 300.
    hold_seconds: Option<u32>,
    /// How many seats a user may hold and own, 1…100; default 4.
    max_seats_per_user: Option<u32>,
    /// Confirmed reservations can be cancelled until here; null is until the show starts.
    cancel_until: Option<DateTime<Utc>>,
    /// The dates.
    schedules: Vec<ConcertSchedule>,
}

/// A concert with its dates.
#[derive(Debug, Serialize, ToSchema)]
struct AdminConcertDto {
    #[serde(flatten)]
    concert: ConcertDto,
    schedules: Vec<ConcertSchedule>,
}

/// Makes a concert or changes it.
#[utoipa::path(put, path = "/admin/concerts/{concert}", tag = "catalogue", params(("concert" = ConcertId, Path)),
    request_body = ConcertDefinition,
    responses((status = 200, body = AdminConcertDto), (status = 409, body = ProblemDetails, description = "`in_use`"),
        (status = 422, body = ProblemDetails)), security(("admin" = [])))]
async fn put(
    State(catalogue): State<Arc<CatalogueService>>,
    NewPathParams(id): NewPathParams<ConcertId>,
    JsonBody(new): JsonBody<ConcertDefinition>,
) -> Result<JsonBody<AdminConcertDto>, ProblemDetails> {
    let own_queue = || id.as_str().parse().map_err(|_| ProblemDetails::internal());
    let concert = Concert {
        version: 0,
        title: new.title,
        queue: new.queue_id.map_or_else(own_queue, Ok)?,
        hold_seconds: new.hold_seconds.unwrap_or(300),
        max_seats_per_user: new.max_seats_per_user.unwrap_or(4),
        cancel_until: new.cancel_until,
        archived: false,
        schedules: new.schedules,
        id,
    };
    let answer = AdminConcertDto {
        concert: ConcertDto::from(&concert),
        schedules: concert.schedules.clone(),
    };
    catalogue.put(concert).await?;
    Ok(JsonBody(answer))
}

/// Reads bodies of the kinds that this room takes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::try_as::<ConcertDefinition>(bytes);
}
