//! The JSON of webhooks and their deliveries.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::WebhookSecret;
use super::sql::{StoredDelivery, StoredWebhook};
use crate::events::cursor::EventCursor;
use crate::http::page::PageLimit;
use crate::ids::WebhookId;
use crate::outbox::event_type::EventType;
use crate::time::UnixMillis;

/// A webhook as an operator defines it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookDefinition {
    /// Where events are sent, `https://…` or `http://…`, at most 2,048 bytes. Without credentials,
    /// and not to a private, loopback or link-local address unless `USHER_WEBHOOK_ALLOW_PRIVATE`
    /// is `true`.
    pub(super) url: String,
    /// The types of events that are sent, at least one.
    pub(super) types: BTreeSet<EventType>,
    /// Whether events are sent. Default: true. Events of a webhook that is not active wait.
    #[serde(default = "yes")]
    pub(super) active: bool,
    /// `whsec_` and Base64 of 24 to 64 bytes for HMAC-SHA256, or `whsk_` and Base64 of an Ed25519
    /// key. Omitted: the secret stays, and a new webhook gets one.
    pub(super) secret: Option<String>,
    /// A `next` of `GET /admin/events`: events after it are sent. Omitted: the cursor stays, and a
    /// new webhook begins with the next event.
    #[schema(value_type = Option<String>)]
    pub(super) after: Option<EventCursor>,
}

fn yes() -> bool {
    true
}

/// Why a webhook was disabled.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DisabledReason {
    /// It answered 410.
    Gone,
    /// Every attempt failed for three days.
    Failing,
    /// Events that it still had to get were deleted.
    CursorExpired,
}

/// An endpoint of another system.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(super) struct WebhookDto {
    pub(super) id: WebhookId,
    /// Where events are sent.
    pub(super) url: String,
    /// The types of events that are sent.
    pub(super) types: BTreeSet<EventType>,
    pub(super) active: bool,
    /// The secret that the service has just made. It is in no other answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
    /// What checks the signatures of an Ed25519 key: `whpk_` and Base64. Null for HMAC.
    pub(super) public_key: Option<String>,
    /// The cursor behind the events that are delivered.
    pub(super) cursor: String,
    pub(super) created_at: UnixMillis,
    /// The last time that all events of a turn were accepted.
    pub(super) delivered_at: Option<UnixMillis>,
    /// Failed attempts in a row.
    pub(super) attempts: u32,
    /// Since when every attempt fails. Null if the last one did not.
    pub(super) failing_since: Option<UnixMillis>,
    /// When the next attempt follows. Null if it does not fail.
    pub(super) next_attempt_at: Option<UnixMillis>,
    /// Why the service has disabled it. Null if it has not.
    pub(super) disabled_reason: Option<DisabledReason>,
}

impl WebhookDto {
    /// `None` when a newer release has written the row.
    pub(super) fn new(webhook: StoredWebhook, secret: Option<String>) -> Option<Self> {
        let disabled_reason = match webhook.disabled_reason.as_deref() {
            None => None,
            Some("gone") => Some(DisabledReason::Gone),
            Some("failing") => Some(DisabledReason::Failing),
            Some("cursor_expired") => Some(DisabledReason::CursorExpired),
            Some(_) => return None,
        };
        Some(Self {
            id: webhook.id.parse().ok()?,
            types: webhook.wanted_types(),
            public_key: webhook.secrets().first().and_then(WebhookSecret::public_key),
            url: webhook.url,
            active: webhook.active,
            secret,
            cursor: webhook.read_cursor,
            created_at: webhook.created_at.into(),
            delivered_at: webhook.delivered_at.map(UnixMillis::from),
            attempts: webhook.attempts,
            failing_since: webhook.failing_since.map(UnixMillis::from),
            next_attempt_at: webhook.next_attempt_at.map(UnixMillis::from),
            disabled_reason,
        })
    }
}

/// All webhooks, by id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhooks)]
pub(super) struct WebhooksDto {
    pub(super) items: Vec<WebhookDto>,
}

/// An attempt to deliver an event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryDto {
    /// The id of the event, or of a test message.
    pub(super) event_id: String,
    /// The type of the event, or `webhook.test`.
    #[schema(example = "payment.confirmed")]
    pub(super) event_type: String,
    /// The status of the answer. Null when there was none.
    pub(super) status_code: Option<u16>,
    /// Why there was no answer.
    pub(super) error: Option<String>,
    /// How long the attempt took, in milliseconds.
    pub(super) duration_ms: u32,
    pub(super) at: UnixMillis,
}

impl From<StoredDelivery> for DeliveryDto {
    fn from(delivery: StoredDelivery) -> Self {
        Self {
            event_id: delivery.event_id,
            event_type: delivery.event_type,
            status_code: delivery.status_code,
            error: delivery.error,
            duration_ms: delivery.duration_ms,
            at: delivery.at.into(),
        }
    }
}

/// A page of attempts, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deliveries)]
pub(super) struct DeliveriesDto {
    pub(super) items: Vec<DeliveryDto>,
    /// The value of `before` for the next page. Null on the last page.
    pub(super) next: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveriesQuery {
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    pub(super) limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    pub(super) before: Option<u64>,
}

/// Where a replay begins.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookReplay {
    /// A `next` of `GET /admin/events`, or a `cursor` of a webhook.
    #[schema(value_type = String)]
    pub(super) after: EventCursor,
}
