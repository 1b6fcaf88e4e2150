//! `GET /admin/events`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::cursor::EventCursor;
use super::{Error, EventDto, EventService};
use crate::http::page::PageLimit;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::outbox::event_type::EventType;

/// The longest wait for an event.
pub const MAX_WAIT: Duration = Duration::from_secs(30);

pub fn router() -> OpenApiRouter<Arc<EventService>> {
    OpenApiRouter::new().routes(routes!(list))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        match error {
            Error::OtherInstallation => {
                Self::invalid_field("after", "must be a cursor of this installation")
            }
            Error::Expired => Self::new(
                StatusCode::GONE,
                "cursor_expired",
                "Events after the cursor are deleted. Read without a cursor, from the oldest one.",
            ),
            Error::Store(error) => error.into(),
            Error::Seats(error) => error.into(),
        }
    }
}

/// Names of types, separated by commas.
#[derive(Debug)]
struct EventTypes(BTreeSet<EventType>);

impl<'de> Deserialize<'de> for EventTypes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let types: Option<BTreeSet<_>> = text.split(',').map(EventType::named).collect();
        types
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("must be types of events, separated by commas"))
    }
}

/// A number of seconds from 0 to 30.
#[derive(Debug, Default)]
struct WaitSeconds(u8);

impl<'de> Deserialize<'de> for WaitSeconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let seconds = u8::deserialize(from)?;
        let valid = (u64::from(seconds) <= MAX_WAIT.as_secs()).then_some(Self(seconds));
        valid.ok_or_else(|| serde::de::Error::custom("must be from 0 to 30"))
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// The `next` of the previous answer. Without it the list begins with the oldest event.
    #[param(value_type = Option<String>)]
    after: Option<EventCursor>,
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    limit: PageLimit,
    /// Only events of these types, separated by commas. Default: all.
    #[param(value_type = Option<String>, example = "payment.confirmed,payment.refunded")]
    types: Option<EventTypes>,
    /// How long to wait for an event when there is none, in seconds, 0–30. Default: 0.
    #[serde(default)]
    #[param(value_type = Option<u8>, minimum = 0, maximum = 30)]
    wait_seconds: WaitSeconds,
}

/// Events in order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Events)]
struct EventsDto {
    items: Vec<EventDto>,
    /// The value of `after` for the next request, also when there are no items.
    #[schema(value_type = String)]
    next: EventCursor,
}

/// List events
///
/// The oldest event comes first. The list has what MySQL has. The events of one reservation with
/// its payments are in order, and so are those of one user's wallet, coupons and rewards. There is
/// no order between these two. Events are kept for `USHER_EVENT_RETENTION_HOURS`.
#[utoipa::path(
    get,
    path = "/admin/events",
    operation_id = "listEvents",
    tag = "event",
    params(EventsQuery),
    responses(
        (status = 200, body = EventsDto),
        (status = 410, body = ProblemDetails,
            description = "`cursor_expired`: events after the cursor are deleted, or the number of \
                partitions has changed."),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn list(
    State(events): State<Arc<EventService>>,
    QueryParams(query): QueryParams<EventsQuery>,
) -> Result<JsonBody<EventsDto>, ProblemDetails> {
    let types = query.types.map(|EventTypes(types)| types);
    let patience = Duration::from_secs(query.wait_seconds.0.into());
    let page = events.read(query.after, query.limit.get(), types.as_ref(), patience).await?;
    let rendered = events.render(page.events).await?;
    let items = rendered.into_iter().map(|(_, event)| event).collect();
    Ok(JsonBody(EventsDto { items, next: page.next }))
}
