//! The admin routes of the catalogue.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{CatalogueService, Concert, ConcertDefinition, ConcertSchedule, sql};
use crate::definition::{ChangedDefinition, DefinitionEtag};
use crate::http::definition_page::{DefinitionsQuery, NameCursor};
use crate::http::merge_patch::{DefinitionChange, MergePatch};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::preconditions::{DefinitionBody, DeletedDefinition, Preconditions};
use crate::http::query::QueryParams;
use crate::http::recorded_change::RecordedChange;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, ScheduleId};

pub fn router() -> OpenApiRouter<Arc<CatalogueService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, put, patch, delete))
}

/// The definition of a concert and what is sold of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminConcert)]
struct AdminConcertDto {
    id: ConcertId,
    definition: ConcertDefinition,
    /// Whether the sale has ended for good. An archived concert can't be changed.
    archived: bool,
    /// The number of seats of all dates.
    total_seats: u32,
    /// The number of sold seats of all dates, as MySQL has them.
    sold_seats: u32,
    /// The dates, in the order of the definition.
    schedules: Vec<AdminScheduleDto>,
}

/// What is sold of one date.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminSchedule)]
struct AdminScheduleDto {
    id: ScheduleId,
    total_seats: u32,
    /// The number of sold seats, as MySQL has them.
    sold_seats: u32,
    /// Whether the date is called off.
    cancelled: bool,
}

/// A page of concerts, sorted by their id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminConcerts)]
struct AdminConcertsDto {
    items: Vec<AdminConcertDto>,
    #[schema(value_type = Option<String>)]
    next: Option<NameCursor>,
}

impl AdminConcertDto {
    fn new(
        id: ConcertId,
        definition: ConcertDefinition,
        archived: bool,
        cancelled: &BTreeSet<ScheduleId>,
        sold: &HashMap<ScheduleId, u32>,
    ) -> Self {
        let schedule = |schedule: &ConcertSchedule| AdminScheduleDto {
            id: schedule.id.clone(),
            total_seats: schedule.seats(),
            sold_seats: sold.get(&schedule.id).copied().unwrap_or_default(),
            cancelled: cancelled.contains(&schedule.id),
        };
        let schedules: Vec<_> = definition.schedules.iter().map(schedule).collect();
        Self {
            id,
            definition,
            archived,
            total_seats: schedules.iter().map(|schedule| schedule.total_seats).sum(),
            sold_seats: schedules.iter().map(|schedule| schedule.sold_seats).sum(),
            schedules,
        }
    }

    fn of(concert: &Concert, sold: &HashMap<ScheduleId, u32>) -> Self {
        Self::new(concert.id.clone(), concert.into(), concert.archived, &concert.cancelled, sold)
    }
}

async fn changed(
    catalogue: &CatalogueService,
    id: ConcertId,
    changed: ChangedDefinition<ConcertDefinition>,
) -> Result<DefinitionBody<AdminConcertDto>, ProblemDetails> {
    let etag = DefinitionEtag::of(id.as_str(), &changed.after);
    let change = RecordedChange::new(changed.before.as_ref(), Some(&changed.after));
    let sold = sql::sold_seats(&catalogue.mysql, &[&id]).await?;
    let stored = catalogue.concert(&id);
    let cancelled = stored.map(|concert| concert.cancelled.clone()).unwrap_or_default();
    let body = AdminConcertDto::new(id, changed.after, false, &cancelled, &sold);
    Ok(DefinitionBody { etag, body, change: Some(change) })
}

/// List all concerts with their definitions
///
/// They are sorted by their id.
#[utoipa::path(
    get,
    path = "/admin/concerts",
    operation_id = "listConcertDefinitions",
    tag = "catalogue",
    params(DefinitionsQuery),
    responses((status = 200, body = AdminConcertsDto), (status = 422, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn list(
    State(catalogue): State<Arc<CatalogueService>>,
    QueryParams(query): QueryParams<DefinitionsQuery>,
) -> Result<JsonBody<AdminConcertsDto>, ProblemDetails> {
    let (concerts, next) = query.cut(catalogue.concerts(), |concert| concert.id.as_str());
    let ids: Vec<_> = concerts.iter().map(|concert| &concert.id).collect();
    let sold = sql::sold_seats(&catalogue.mysql, &ids).await?;
    let items = concerts.iter().map(|concert| AdminConcertDto::of(concert, &sold)).collect();
    Ok(JsonBody(AdminConcertsDto { items, next }))
}

/// Get the definition of a concert and what is sold of it
#[utoipa::path(
    get,
    path = "/admin/concerts/{concert}",
    operation_id = "getConcertDefinition",
    tag = "catalogue",
    params(("concert" = ConcertId, Path)),
    responses(
        (status = 200, body = AdminConcertDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 404, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn show(
    State(catalogue): State<Arc<CatalogueService>>,
    PathParams(id): PathParams<ConcertId>,
) -> Result<DefinitionBody<AdminConcertDto>, ProblemDetails> {
    let concert = catalogue.find_concert(&id).await?;
    let sold = sql::sold_seats(&catalogue.mysql, &[&id]).await?;
    let body = AdminConcertDto::of(&concert, &sold);
    let etag = DefinitionEtag::of(id.as_str(), &body.definition);
    Ok(DefinitionBody { etag, body, change: None })
}

/// Create a concert or replace its definition
///
/// A change that would remove a held or sold seat is refused with `in_use`, and so is any change of
/// an archived concert. Moving the concert to another queue, or removing a schedule, is refused with
/// `in_use` until MySQL has everything of the old queue; repeat it after a few seconds. An omitted
/// field takes its default.
#[utoipa::path(
    put,
    path = "/admin/concerts/{concert}",
    operation_id = "putConcert",
    tag = "catalogue",
    params(
        ("concert" = ConcertId, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    request_body = ConcertDefinition,
    responses(
        (status = 200, body = AdminConcertDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 409, body = ProblemDetails,
            description = "`in_use`. For seats in the way, `in_use` lists the first 20 reservations as \
                `{kind: \"seat_held\" | \"seat_sold\", id, seats, until}`."),
        (status = 412, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn put(
    State(catalogue): State<Arc<CatalogueService>>,
    NewPathParams(id): NewPathParams<ConcertId>,
    Preconditions(preconditions): Preconditions,
    JsonBody(definition): JsonBody<ConcertDefinition>,
) -> Result<DefinitionBody<AdminConcertDto>, ProblemDetails> {
    let change = DefinitionChange::Replace(definition);
    let definition = catalogue.change(&id, change, &preconditions).await?;
    changed(&catalogue, id, definition).await
}

/// Change some fields of a concert
///
/// A JSON Merge Patch (RFC 7396): an omitted field stays as it is, and `null` resets one to its
/// default. The list of schedules is replaced as a whole.
#[utoipa::path(
    patch,
    path = "/admin/concerts/{concert}",
    operation_id = "patchConcert",
    tag = "catalogue",
    params(
        ("concert" = ConcertId, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    request_body(
        content((Object = "application/merge-patch+json", example = json!({"hold_seconds": 600})),
            (Object = "application/json", example = json!({"hold_seconds": 600}))),
        description = "The fields of the definition that change.",
    ),
    responses(
        (status = 200, body = AdminConcertDto,
            headers(("ETag" = String, description = "The version of the definition."))),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`in_use`, as for a replacement."),
        (status = 412, body = ProblemDetails),
        (status = 415, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn patch(
    State(catalogue): State<Arc<CatalogueService>>,
    PathParams(id): PathParams<ConcertId>,
    Preconditions(preconditions): Preconditions,
    patch: MergePatch,
) -> Result<DefinitionBody<AdminConcertDto>, ProblemDetails> {
    let change = DefinitionChange::Patch(patch);
    let definition = catalogue.change(&id, change, &preconditions).await?;
    changed(&catalogue, id, definition).await
}

/// Delete a concert
///
/// Its queue stays. So do the records of its past reservations and payments.
#[utoipa::path(
    delete,
    path = "/admin/concerts/{concert}",
    operation_id = "deleteConcert",
    tag = "catalogue",
    params(
        ("concert" = ConcertId, Path),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    responses(
        (status = 204, description = "The concert is deleted."),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails,
            description = "`in_use` while seats are held or sold. `in_use` lists the first 20 \
                reservations as `{kind: \"seat_held\" | \"seat_sold\", id, seats, until}`."),
        (status = 412, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn delete(
    State(catalogue): State<Arc<CatalogueService>>,
    PathParams(id): PathParams<ConcertId>,
    Preconditions(preconditions): Preconditions,
) -> Result<DeletedDefinition, ProblemDetails> {
    let deleted = catalogue.delete(&id, &preconditions).await?;
    Ok((StatusCode::NO_CONTENT, RecordedChange::deleted(&deleted)))
}

/// Parses the request bodies of these routes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<ConcertDefinition>(bytes);
}
