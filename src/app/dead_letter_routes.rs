//! The admin routes of dead letters.

use std::fmt;
use std::str::FromStr;

use axum::extract::State;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::domain_services::DomainServices;
use crate::http::page::PageLimit;
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::outbox::dead_letters::{self, DeadLetterSummary};
use crate::time::UnixMillis;

pub(super) fn router() -> OpenApiRouter<DomainServices> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retry))
}

/// The partition and the number of an outbox entry: `17-4711`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DeadLetterId {
    partition: u16,
    n: u64,
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.n)
    }
}

impl FromStr for DeadLetterId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (partition, n) = text.split_once('-')?;
            let id = Self { partition: partition.parse().ok()?, n: n.parse().ok()? };
            (id.to_string() == text).then_some(id)
        };
        parse().ok_or("must be the id of a dead letter")
    }
}

impl Serialize for DeadLetterId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeadLetterId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Events that MySQL refused, from one outbox entry.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
struct DeadLetterDto {
    /// The partition and the number of the outbox entry.
    #[schema(value_type = String, example = "17-4711")]
    id: DeadLetterId,
    /// The number of the partition.
    partition: u16,
    /// The number of the outbox entry.
    entry: u64,
    /// The indexes of the refused events in the entry. Null when it can't be decoded.
    events: Option<Vec<u16>>,
    /// The length of the entry in bytes.
    bytes: u64,
    /// The error of the first refused event.
    cause: String,
    /// When MySQL refused it.
    buried_at: UnixMillis,
}

impl From<DeadLetterSummary> for DeadLetterDto {
    fn from(letter: DeadLetterSummary) -> Self {
        Self {
            id: DeadLetterId { partition: letter.partition, n: letter.n },
            partition: letter.partition,
            entry: letter.n,
            events: letter.events.map(|events| events.0),
            bytes: letter.bytes,
            cause: letter.cause,
            buried_at: letter.buried_at.into(),
        }
    }
}

/// A page of dead letters, by partition and number.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetters)]
struct DeadLettersDto {
    items: Vec<DeadLetterDto>,
    /// The value of `before` for the next page. Null on the last page.
    #[schema(value_type = Option<String>)]
    next: Option<DeadLetterId>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DeadLettersQuery {
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    before: Option<DeadLetterId>,
}

/// What a retry has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = DeadLetterStatus)]
enum RetriedStatus {
    /// MySQL has all events now, and the letter is gone.
    Applied,
    /// MySQL refused events again. The letter stays.
    Refused,
}

/// The outcome of a retry.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetriedDeadLetter)]
struct RetriedDto {
    /// The partition and the number of the outbox entry.
    #[schema(value_type = String, example = "17-4711")]
    id: DeadLetterId,
    status: RetriedStatus,
    /// Why MySQL refused it again. Null when it was applied.
    cause: Option<String>,
}

/// List the events that MySQL refused
///
/// They are sorted by partition and number.
#[utoipa::path(
    get,
    path = "/admin/dead-letters",
    operation_id = "listDeadLetters",
    tag = "admin",
    params(DeadLettersQuery),
    responses((status = 200, body = DeadLettersDto), (status = 422, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn list(
    State(services): State<DomainServices>,
    QueryParams(query): QueryParams<DeadLettersQuery>,
) -> Result<JsonBody<DeadLettersDto>, ProblemDetails> {
    let after = query.before.map(|id| (id.partition, id.n));
    let limit = query.limit.get();
    let mut letters = dead_letters::page(&services.mysql, after, limit + 1).await?;
    let has_next = letters.len() > limit;
    letters.truncate(limit);
    let items: Vec<DeadLetterDto> = letters.into_iter().map(DeadLetterDto::from).collect();
    let next = items.last().filter(|_| has_next).map(|letter| letter.id);
    Ok(JsonBody(DeadLettersDto { items, next }))
}

/// Apply a dead letter again
///
/// A newer state of the same object is kept.
#[utoipa::path(
    post,
    path = "/admin/dead-letters/{id}/retry",
    operation_id = "retryDeadLetter",
    tag = "admin",
    params(("id" = String, Path, description = "The id of the dead letter.")),
    responses((status = 200, body = RetriedDto), (status = 404, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn retry(
    State(services): State<DomainServices>,
    PathParams(id): PathParams<DeadLetterId>,
) -> Result<JsonBody<RetriedDto>, ProblemDetails> {
    let position = (id.partition, id.n);
    let partitions = services.redis.keys().partitions();
    let outcome = dead_letters::retry(&services.mysql, partitions, Some(position)).await?;
    if outcome.applied + outcome.refused == 0 {
        return Err(ProblemDetails::not_found());
    }
    let cause = dead_letters::cause(&services.mysql, position).await?;
    let status = if outcome.applied > 0 { RetriedStatus::Applied } else { RetriedStatus::Refused };
    Ok(JsonBody(RetriedDto { id, status, cause }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_has_one_spelling() {
        let id = DeadLetterId { partition: 17, n: 4711 };
        assert_eq!("17-4711".parse(), Ok(id));
        for bad in ["", "17", "17-", "-1", "017-1", "17-+1", "70000-1", "1-2-3", "17:4711"] {
            assert!(bad.parse::<DeadLetterId>().is_err(), "{bad}");
        }
    }
}
