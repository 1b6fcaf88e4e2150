//! The routes of seat maps: the layout, which is the same for everyone and rarely changes, and the
//! seats with their statuses.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::best_store::sections;
use super::seat_statuses::{SeatStatus, SeatStatuses};
use super::{Error, SeatService};
use crate::catalogue::{ScheduledConcert, SeatSection};
use crate::http::cache::CachedForOneSecond;
use crate::http::entity_tag::EntityTag;
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::ScheduleId;
use crate::money::Money;
use crate::queue::TokenHolder;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeatLayout)]
struct SeatLayoutDto<'a> {
    schedule_id: &'a ScheduleId,
    /// The sections. Together they cover the seat numbers 1…n without a gap.
    sections: Vec<&'a SeatSection>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Seat)]
pub(super) struct SeatDto {
    number: u32,
    section: String,
    price: Money,
    status: SeatStatus,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeatMap)]
pub(super) struct SeatMapDto {
    schedule_id: ScheduleId,
    items: Vec<SeatDto>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeatStatuses)]
pub(super) struct SeatStatusesDto {
    schedule_id: ScheduleId,
    /// The `ETag` of the layout, also when `section` limits the view. Another value than before
    /// means that the layout has changed.
    #[schema(example = "\"9f86d081884c7d65\"")]
    layout_etag: String,
    /// One letter for each seat in the order of numbers: `a` available, `h` held, `s` sold.
    #[schema(example = "aahsa")]
    statuses: String,
}

impl SeatStatusesDto {
    pub(super) fn new(schedule_id: ScheduleId, layout: EntityTag, statuses: String) -> Self {
        Self { schedule_id, layout_etag: layout.to_string(), statuses }
    }
}

/// The seats of a schedule in one of the views.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SeatMapOrStatuses)]
pub(super) enum SeatViewDto {
    List(SeatMapDto),
    Status(SeatStatusesDto),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SeatView {
    #[default]
    List,
    Status,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SeatFilter {
    /// `list`, the default, returns each seat with its section and price, `status` one letter for
    /// each seat.
    #[serde(default)]
    #[param(inline)]
    view: SeatView,
    /// Return only the seats of this section.
    section: Option<String>,
    /// Return only seats with this status, in the view `list`.
    status: Option<SeatStatus>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SectionFilter {
    /// Return only this section.
    section: Option<String>,
}

/// Get the layout of a schedule
///
/// The sections with their seat numbers and prices, in the order in which the best seats are
/// searched. The layout is the same for everyone. Its `ETag` is the `layout_etag` of the statuses.
/// The response is at most one second old.
#[utoipa::path(
    get,
    path = "/v1/schedules/{schedule}/layout",
    operation_id = "getSeatLayout",
    tag = "catalogue",
    params(
        ("schedule" = ScheduleId, Path),
        SectionFilter,
        ("If-None-Match" = Option<String>, Header,
            description = "The `ETag` of the layout that the client has."),
    ),
    responses(
        (status = 200, body = SeatLayoutDto,
            headers(("ETag" = String, description = "The version of the whole layout."))),
        (status = 304, description = "The client has the current layout."),
        (status = 404, body = ProblemDetails),
        (status = 422, body = ProblemDetails, description = "The section does not exist."),
    )
)]
pub(super) async fn layout(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ScheduleId>,
    QueryParams(filter): QueryParams<SectionFilter>,
    headers: HeaderMap,
) -> Result<Response, ProblemDetails> {
    let scheduled = seats.catalogue.find_schedule(&id).await?;
    let sections = known_sections(&scheduled, filter.section.as_deref())?;
    let body = CachedForOneSecond(JsonBody(SeatLayoutDto { schedule_id: &id, sections }));
    Ok(layout_tag(&scheduled).respond(&headers, body))
}

/// List the seats of a schedule
///
/// The seats are sorted by number. Under load, the response may be up to 200 ms old. For a large
/// hall, get the layout once, and the statuses with `view=status`.
#[utoipa::path(
    get,
    path = "/v1/schedules/{schedule}/seats",
    operation_id = "listSeats",
    tag = "catalogue",
    params(("schedule" = ScheduleId, Path), SeatFilter),
    responses(
        (status = 200, body = SeatViewDto),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 410, body = ProblemDetails),
        (status = 422, body = ProblemDetails,
            description = "`invalid_request`: a parameter is invalid, or the section does not exist."),
    ),
    security(("queue_token" = []))
)]
pub(super) async fn seat_map(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ScheduleId>,
    TokenHolder { claims, .. }: TokenHolder,
    QueryParams(filter): QueryParams<SeatFilter>,
) -> Result<JsonBody<SeatViewDto>, ProblemDetails> {
    let scheduled = seats.admitted_schedule(&claims, &id).await?;
    let sections = sections_by_number(&scheduled, filter.section.as_deref())?;
    if filter.view == SeatView::Status && filter.status.is_some() {
        let message = "is only for the view list".to_owned();
        return Err(Error::InvalidField("status", message).into());
    }
    let statuses = seats.seat_statuses(&scheduled).await?;
    Ok(JsonBody(match filter.view {
        SeatView::List => SeatViewDto::List(SeatMapDto {
            schedule_id: id,
            items: seat_items(&sections, &statuses, filter.status),
        }),
        SeatView::Status => SeatViewDto::Status(SeatStatusesDto::new(
            id,
            layout_tag(&scheduled),
            statuses.of_sections(&sections),
        )),
    }))
}

fn seat_items(
    sections: &[&SeatSection],
    statuses: &SeatStatuses,
    wanted: Option<SeatStatus>,
) -> Vec<SeatDto> {
    let mut items = Vec::new();
    for section in sections {
        for number in section.from..=section.to {
            let status = statuses.get(number);
            if let Some(status) = status.filter(|it| wanted.is_none_or(|wanted| wanted == *it)) {
                items.push(SeatDto {
                    number,
                    section: section.name.clone(),
                    price: section.price,
                    status,
                });
            }
        }
    }
    items
}

/// The tag of the whole layout.
pub(super) fn layout_tag(scheduled: &ScheduledConcert) -> EntityTag {
    let schedule = scheduled.schedule();
    let layout =
        SeatLayoutDto { schedule_id: &schedule.id, sections: schedule.sections.iter().collect() };
    EntityTag::of(&serde_json::to_vec(&layout).unwrap_or_default())
}

/// The sections with this name, or all, in the order of the definition.
fn known_sections<'a>(
    scheduled: &'a ScheduledConcert,
    name: Option<&str>,
) -> Result<Vec<&'a SeatSection>, Error> {
    let sections = sections(scheduled, name);
    if sections.is_empty() {
        return Err(Error::InvalidField("section", "does not exist".into()));
    }
    Ok(sections)
}

fn sections_by_number<'a>(
    scheduled: &'a ScheduledConcert,
    name: Option<&str>,
) -> Result<Vec<&'a SeatSection>, Error> {
    let mut sections = known_sections(scheduled, name)?;
    sections.sort_by_key(|section| section.from);
    Ok(sections)
}
