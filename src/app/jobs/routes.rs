//! The admin routes of jobs.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sql::{self, StoredJob};
use crate::app::domain_services::DomainServices;
use crate::http::page::{self, PageCursor, PageLimit};
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails, reason};
use crate::ids::{JobId, ScheduleId};
use crate::time::UnixMillis;

pub(in crate::app) fn router() -> OpenApiRouter<DomainServices> {
    OpenApiRouter::new()
        .routes(routes!(cancel_schedule))
        .routes(routes!(list))
        .routes(routes!(show))
}

/// Why a schedule is called off.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "The artist is ill."}))]
struct ScheduleCancellationRequest {
    /// 1–500 characters, for the records of the operators.
    reason: String,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobKind)]
enum JobKindDto {
    /// Cancels and refunds every reservation of a schedule.
    CancelSchedule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobStatus)]
enum JobStatusDto {
    Running,
    Done,
    /// It has ended, and some items failed. Start it again after the cause is repaired.
    Failed,
}

/// Work in the background.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
struct JobDto {
    id: JobId,
    kind: JobKindDto,
    /// The schedule that is called off.
    schedule_id: String,
    /// Why, as the operator wrote it.
    reason: String,
    status: JobStatusDto,
    /// The number of reservations that are cancelled or released.
    done: u32,
    /// The number of reservations to cancel or release. 0 until they are counted.
    total: u32,
    /// The number of reservations that could not be cancelled. The log has the causes.
    failures: u32,
    started_at: UnixMillis,
    /// Null while it runs.
    ended_at: Option<UnixMillis>,
}

impl JobDto {
    fn new(job: StoredJob) -> Option<Self> {
        let status = match job.status.as_str() {
            "running" => JobStatusDto::Running,
            "done" => JobStatusDto::Done,
            "failed" => JobStatusDto::Failed,
            _ => return None,
        };
        (job.kind == "cancel_schedule").then(|| Self {
            id: job.id.into(),
            kind: JobKindDto::CancelSchedule,
            schedule_id: job.object,
            reason: job.reason,
            status,
            done: job.done,
            total: job.total,
            failures: job.failures,
            started_at: job.started_at.into(),
            ended_at: job.ended_at.map(UnixMillis::from),
        })
    }
}

/// A page of jobs, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Jobs)]
struct JobsDto {
    items: Vec<JobDto>,
    /// The value of `before` for the next page. Null on the last page.
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct JobsQuery {
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    before: Option<PageCursor>,
}

/// Call off a date
///
/// From the response on, no seat of the date can be held. In the background every hold is released
/// and every reservation is cancelled and refunded, whatever `cancel_until` says. The job continues
/// after the death of an instance. A repeated request returns the job that there is; a failed one
/// runs again.
#[utoipa::path(
    post,
    path = "/admin/schedules/{schedule}/cancel",
    operation_id = "cancelSchedule",
    tag = "admin",
    params(("schedule" = ScheduleId, Path)),
    request_body = ScheduleCancellationRequest,
    responses(
        (status = 202, body = JobDto, description = "The date is called off, and the job runs."),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "`in_use`: the concert is archived."),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn cancel_schedule(
    State(services): State<DomainServices>,
    PathParams(schedule): PathParams<ScheduleId>,
    JsonBody(request): JsonBody<ScheduleCancellationRequest>,
) -> Result<(StatusCode, JsonBody<JobDto>), ProblemDetails> {
    let reason = request.reason;
    reason::check(&reason)?;
    let mut cancellation = services.catalogue.begin_cancellation(&schedule).await?;
    let id = sql::start_cancellation(cancellation.connection(), &schedule, &reason).await?;
    services.catalogue.commit_cancellation(cancellation, &reason).await?;
    Ok((StatusCode::ACCEPTED, JsonBody(find(&services, id).await?)))
}

/// List the jobs
///
/// The newest job comes first.
#[utoipa::path(
    get,
    path = "/admin/jobs",
    operation_id = "listJobs",
    tag = "admin",
    params(JobsQuery),
    responses((status = 200, body = JobsDto), (status = 422, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn list(
    State(services): State<DomainServices>,
    QueryParams(query): QueryParams<JobsQuery>,
) -> Result<JsonBody<JobsDto>, ProblemDetails> {
    let before = query.before.unwrap_or(PageCursor::START);
    let jobs = sql::page(&services.mysql, before, query.limit.get()).await?;
    let cursor = |job: &StoredJob| PageCursor { at: job.started_at.timestamp_millis(), id: job.id };
    let (jobs, next) = page::cut(jobs, query.limit, cursor);
    Ok(JsonBody(JobsDto { items: jobs.into_iter().filter_map(JobDto::new).collect(), next }))
}

/// Get a job
#[utoipa::path(
    get,
    path = "/admin/jobs/{id}",
    operation_id = "getJob",
    tag = "admin",
    params(("id" = JobId, Path)),
    responses((status = 200, body = JobDto), (status = 404, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn show(
    State(services): State<DomainServices>,
    PathParams(id): PathParams<JobId>,
) -> Result<JsonBody<JobDto>, ProblemDetails> {
    find(&services, id).await.map(JsonBody)
}

async fn find(services: &DomainServices, id: JobId) -> Result<JobDto, ProblemDetails> {
    let job = sql::one(&services.mysql, id).await?;
    job.and_then(JobDto::new).ok_or_else(ProblemDetails::not_found)
}
