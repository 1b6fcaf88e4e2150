//! The admin routes of webhooks.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::{
    DeliveriesDto, DeliveriesQuery, DeliveryDto, WebhookDefinition, WebhookDto, WebhookReplay,
    WebhooksDto,
};
use super::sender::{DeliveryOutcome, WebhookMessage, leads_to_private};
use super::sql::{self, NewDelivery, WebhookChange};
use super::url_rules::{self, NOT_PUBLIC};
use super::{Error, MAX_WEBHOOKS, WebhookSecret, WebhookService};
use crate::http::path::{NewPathParams, PathParams};
use crate::http::query::QueryParams;
use crate::http::recorded_change::RecordedChange;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::WebhookId;
use crate::time::UnixMillis;

/// How long a test waits for an answer.
const TEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The type of the message that a test sends.
const TEST_TYPE: &str = "webhook.test";

pub fn router() -> OpenApiRouter<Arc<WebhookService>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(put, show, delete))
        .routes(routes!(deliveries))
        .routes(routes!(rotate))
        .routes(routes!(replay))
        .routes(routes!(test))
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::not_found(),
            Error::Invalid { field, rule } => Self::invalid_field(field, rule),
            Error::Events(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// List the webhooks
///
/// They are sorted by id. There are at most 100.
#[utoipa::path(
    get,
    path = "/admin/webhooks",
    operation_id = "listWebhooks",
    tag = "event",
    responses((status = 200, body = WebhooksDto)),
    security(("admin" = []))
)]
async fn list(
    State(webhooks): State<Arc<WebhookService>>,
) -> Result<JsonBody<WebhooksDto>, ProblemDetails> {
    let all = sql::all(&webhooks.mysql).await?;
    let items = all.into_iter().filter_map(|webhook| WebhookDto::new(webhook, None)).collect();
    Ok(JsonBody(WebhooksDto { items }))
}

/// Get a webhook
#[utoipa::path(
    get,
    path = "/admin/webhooks/{id}",
    operation_id = "getWebhook",
    tag = "event",
    params(("id" = WebhookId, Path)),
    responses((status = 200, body = WebhookDto), (status = 404, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn show(
    State(webhooks): State<Arc<WebhookService>>,
    PathParams(id): PathParams<WebhookId>,
) -> Result<JsonBody<WebhookDto>, ProblemDetails> {
    dto(&webhooks, &id, None).await.map(JsonBody)
}

async fn dto(
    webhooks: &WebhookService,
    id: &WebhookId,
    secret: Option<String>,
) -> Result<WebhookDto, ProblemDetails> {
    let webhook = webhooks.find(id).await?;
    WebhookDto::new(webhook, secret).ok_or_else(ProblemDetails::not_found)
}

/// What the audit log has of a webhook: everything but its secret.
fn recorded(before: Option<&WebhookDto>, after: Option<&WebhookDto>) -> Extension<RecordedChange> {
    let without_secret = |webhook: &WebhookDto| {
        let mut value = serde_json::to_value(webhook).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.remove("secret");
        }
        value
    };
    let (before, after) = (before.map(without_secret), after.map(without_secret));
    Extension(RecordedChange::new(before.as_ref(), after.as_ref()))
}

type ChangedWebhook = (Extension<RecordedChange>, JsonBody<WebhookDto>);

/// Create or replace a webhook
///
/// A new webhook begins with the next event, or after the cursor `after`. A secret that the service
/// makes is in this answer only. A webhook that was disabled or fails is tried again at once.
#[utoipa::path(
    put,
    path = "/admin/webhooks/{id}",
    operation_id = "putWebhook",
    tag = "event",
    params(("id" = WebhookId, Path)),
    request_body = WebhookDefinition,
    responses(
        (status = 200, body = WebhookDto),
        (status = 410, body = ProblemDetails, description = "`cursor_expired`"),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn put(
    State(webhooks): State<Arc<WebhookService>>,
    NewPathParams(id): NewPathParams<WebhookId>,
    JsonBody(definition): JsonBody<WebhookDefinition>,
) -> Result<ChangedWebhook, ProblemDetails> {
    let WebhookDefinition { url, types, active, secret, after } = definition;
    let invalid = |field, rule| ProblemDetails::from(Error::Invalid { field, rule });
    let parsed =
        url_rules::parse(&url, webhooks.allow_private).map_err(|rule| invalid("url", rule))?;
    if types.is_empty() {
        return Err(invalid("types", "must have at least one type"));
    }
    let given = secret.as_deref().map(WebhookSecret::parse).transpose();
    let given = given.map_err(|rule| invalid("secret", rule))?;
    let host = parsed.domain().filter(|_| !webhooks.allow_private);
    if let Some(host) = host
        && leads_to_private(host).await
    {
        return Err(invalid("url", NOT_PUBLIC));
    }
    let stored = sql::one(&webhooks.mysql, id.as_str()).await?;
    if stored.is_none() && sql::count(&webhooks.mysql).await? >= MAX_WEBHOOKS {
        return Err(invalid("", "there are 100 webhooks already"));
    }
    let read_cursor = match (after, &stored) {
        (Some(after), _) => {
            webhooks.events.check_cursor(&after).await?;
            after.to_string()
        }
        (None, Some(stored)) => stored.read_cursor.clone(),
        (None, None) => webhooks.events.newest().await?.to_string(),
    };
    let (secret, shown) = match (given, &stored) {
        (Some(given), _) => (given.text().to_owned(), None),
        (None, Some(stored)) => (stored.secret.clone(), None),
        (None, None) => {
            let made = WebhookSecret::generate(None).text().to_owned();
            (made.clone(), Some(made))
        }
    };
    let names: Vec<&str> = types.iter().map(|kind| kind.as_str()).collect();
    let change = WebhookChange {
        id: &id,
        url: &url,
        types: &names.join(","),
        active,
        secret: &secret,
        read_cursor: &read_cursor,
    };
    sql::put(&webhooks.mysql, &change).await?;
    let before = stored.and_then(|stored| WebhookDto::new(stored, None));
    let after = dto(&webhooks, &id, shown).await?;
    Ok((recorded(before.as_ref(), Some(&after)), JsonBody(after)))
}

/// Delete a webhook
///
/// An attempt in progress may still arrive.
#[utoipa::path(
    delete,
    path = "/admin/webhooks/{id}",
    operation_id = "deleteWebhook",
    tag = "event",
    params(("id" = WebhookId, Path)),
    responses((status = 204), (status = 404, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn delete(
    State(webhooks): State<Arc<WebhookService>>,
    PathParams(id): PathParams<WebhookId>,
) -> Result<(StatusCode, Extension<RecordedChange>), ProblemDetails> {
    let before = dto(&webhooks, &id, None).await?;
    sql::delete(&webhooks.mysql, id.as_str()).await?;
    Ok((StatusCode::NO_CONTENT, recorded(Some(&before), None)))
}

/// List the attempts of a webhook
///
/// The newest attempt comes first. The last 1,000 are kept.
#[utoipa::path(
    get,
    path = "/admin/webhooks/{id}/deliveries",
    operation_id = "listDeliveries",
    tag = "event",
    params(("id" = WebhookId, Path), DeliveriesQuery),
    responses(
        (status = 200, body = DeliveriesDto),
        (status = 404, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn deliveries(
    State(webhooks): State<Arc<WebhookService>>,
    PathParams(id): PathParams<WebhookId>,
    QueryParams(query): QueryParams<DeliveriesQuery>,
) -> Result<JsonBody<DeliveriesDto>, ProblemDetails> {
    webhooks.find(&id).await?;
    let (limit, before) = (query.limit.get(), query.before.unwrap_or(u64::MAX));
    let mut found = sql::deliveries(&webhooks.mysql, id.as_str(), before, limit + 1).await?;
    let has_next = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_next).map(|delivery| delivery.id.to_string());
    Ok(JsonBody(DeliveriesDto { items: found.into_iter().map(DeliveryDto::from).collect(), next }))
}

/// Replace the secret of a webhook
///
/// The answer has the new secret. For 24 hours messages are signed with both.
#[utoipa::path(
    post,
    path = "/admin/webhooks/{id}/rotate",
    operation_id = "rotateWebhookSecret",
    tag = "event",
    params(("id" = WebhookId, Path)),
    responses((status = 200, body = WebhookDto), (status = 404, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn rotate(
    State(webhooks): State<Arc<WebhookService>>,
    PathParams(id): PathParams<WebhookId>,
) -> Result<JsonBody<WebhookDto>, ProblemDetails> {
    let stored = webhooks.find(&id).await?;
    let old = WebhookSecret::parse(&stored.secret).ok();
    let made = WebhookSecret::generate(old.as_ref()).text().to_owned();
    sql::rotate(&webhooks.mysql, id.as_str(), &made).await?;
    dto(&webhooks, &id, Some(made)).await.map(JsonBody)
}

/// Send events of a webhook again
///
/// Every event after the cursor is sent, also those that were delivered before.
#[utoipa::path(
    post,
    path = "/admin/webhooks/{id}/replay",
    operation_id = "replayWebhook",
    tag = "event",
    params(("id" = WebhookId, Path)),
    request_body = WebhookReplay,
    responses(
        (status = 200, body = WebhookDto),
        (status = 404, body = ProblemDetails),
        (status = 410, body = ProblemDetails, description = "`cursor_expired`"),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn replay(
    State(webhooks): State<Arc<WebhookService>>,
    PathParams(id): PathParams<WebhookId>,
    JsonBody(request): JsonBody<WebhookReplay>,
) -> Result<ChangedWebhook, ProblemDetails> {
    let before = dto(&webhooks, &id, None).await?;
    webhooks.events.check_cursor(&request.after).await?;
    sql::replay(&webhooks.mysql, id.as_str(), &request.after.to_string()).await?;
    let after = dto(&webhooks, &id, None).await?;
    Ok((recorded(Some(&before), Some(&after)), JsonBody(after)))
}

/// Send a test message to a webhook
///
/// The message has the type `webhook.test` and is signed as events are. The answer says what the
/// endpoint did. It is sent once, also to a webhook that is not active.
#[utoipa::path(
    post,
    path = "/admin/webhooks/{id}/test",
    operation_id = "testWebhook",
    tag = "event",
    params(("id" = WebhookId, Path)),
    responses((status = 200, body = DeliveryDto), (status = 404, body = ProblemDetails)),
    security(("admin" = []))
)]
async fn test(
    State(webhooks): State<Arc<WebhookService>>,
    PathParams(id): PathParams<WebhookId>,
) -> Result<JsonBody<DeliveryDto>, ProblemDetails> {
    let stored = webhooks.find(&id).await?;
    let event_id = format!("evt-test-{}", uuid::Uuid::new_v4().simple());
    let body = serde_json::json!({
        "id": event_id,
        "type": TEST_TYPE,
        "timestamp": UnixMillis::from(stored.now),
        "data": {},
    });
    let message = WebhookMessage { id: event_id.clone(), body: body.to_string().into() };
    let began = tokio::time::Instant::now();
    let secrets = stored.secrets();
    let outcome = webhooks.sender.send(&stored.url, &secrets, &message, TEST_TIMEOUT).await;
    let duration_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
    let delivery = NewDelivery {
        event_id: event_id.clone(),
        event_type: TEST_TYPE,
        outcome: outcome.clone(),
        duration_ms,
    };
    sql::add_deliveries(&webhooks.mysql, id.as_str(), &[delivery]).await?;
    let (status_code, error) = match outcome {
        DeliveryOutcome::Answered(status) => (Some(status), None),
        DeliveryOutcome::Failed(error) => (None, Some(error)),
    };
    Ok(JsonBody(DeliveryDto {
        event_id,
        event_type: TEST_TYPE.to_owned(),
        status_code,
        error,
        duration_ms,
        at: stored.now.into(),
    }))
}
