//! Delivers events: claims webhooks, reads windows of events, sends them, and repeats what fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::sender::{DeliveryOutcome, WebhookMessage, now};
use super::sql::{self, NewDelivery, StoredWebhook, WebhookLease};
use super::{Error, RetrySchedule, WebhookService};
use crate::events::cursor::EventCursor;
use crate::events::{self, EventSubject};
use crate::telemetry::Metric;
use crate::time::UnixMillis;

/// How often an instance looks for webhooks that no instance delivers.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Renewed five times in each lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// Webhooks that one instance delivers at the same time.
const MAX_WEBHOOKS_PER_INSTANCE: usize = 32;
/// Events of one window. It bounds the memory of a webhook, and what is repeated after a crash.
const WINDOW_EVENTS: usize = 200;
/// Messages to one endpoint at the same time.
const MAX_CONCURRENT_MESSAGES: usize = 16;

/// Delivers until `stop` is cancelled. A webhook that it leaves is continued by another instance.
pub(super) async fn run(
    service: Arc<WebhookService>,
    retries: RetrySchedule,
    stop: CancellationToken,
) {
    let owner = Uuid::from_u128(rand::random());
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut working = JoinSet::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        while working.try_join_next().is_some() {}
        service.report().await;
        let free = MAX_WEBHOOKS_PER_INSTANCE.saturating_sub(working.len());
        match sql::claim(&service.mysql, owner, free).await {
            Ok(claimed) => {
                for id in claimed {
                    let worker =
                        DeliveryWorker { service: service.clone(), retries, stop: stop.clone() };
                    working.spawn(worker.deliver(id, owner));
                }
            }
            Err(error) => tracing::debug!(%error, "could not look for webhooks"),
        }
    }
    while working.join_next().await.is_some() {}
}

/// Why the work on a webhook ends.
enum EndOfWork {
    /// Another instance has the lease, or an operator changed the webhook.
    LeaseLost,
    Stopped,
    Disabled,
}

/// An event of a window.
struct WindowEvent {
    subject: EventSubject,
    kind: &'static str,
    message: WebhookMessage,
}

/// What became of a window in one attempt.
struct WindowOutcome {
    /// What has to be repeated, in order.
    left: Vec<WindowEvent>,
    deliveries: Vec<NewDelivery>,
    is_gone: bool,
}

/// The work of an instance on one webhook.
struct DeliveryWorker {
    service: Arc<WebhookService>,
    retries: RetrySchedule,
    stop: CancellationToken,
}

impl DeliveryWorker {
    /// Delivers to one webhook until the lease ends.
    async fn deliver(self, id: String, owner: Uuid) {
        let webhook = match sql::one(&self.service.mysql, &id).await {
            Ok(Some(webhook)) => webhook,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "could not read a webhook"),
        };
        let lease = WebhookLease { id, version: webhook.version, owner };
        match self.work(&webhook, &lease).await {
            Ok(EndOfWork::LeaseLost | EndOfWork::Stopped) => {}
            Ok(EndOfWork::Disabled) => {
                tracing::error!(webhook = lease.id, "a webhook was disabled");
            }
            Err(error) => {
                tracing::warn!(webhook = lease.id, %error, "deliveries were interrupted");
            }
        }
        Self::record_lag(&lease.id, None);
        if let Err(error) = lease.release(&self.service.mysql).await {
            tracing::debug!(%error, "could not release a webhook; its lease ends soon");
        }
    }

    async fn work(
        &self,
        webhook: &StoredWebhook,
        lease: &WebhookLease,
    ) -> Result<EndOfWork, Error> {
        let types = webhook.wanted_types();
        let mut cursor: EventCursor = match webhook.read_cursor.parse() {
            Ok(cursor) => cursor,
            Err(_) => return self.disable(lease, "cursor_expired").await,
        };
        let mut failures = webhook.attempts;
        let mut failing_since = webhook.failing_since;
        if let Some(next) = webhook.next_attempt_at {
            let pause = (next - webhook.now).to_std().unwrap_or_default();
            if let Some(end) = self.pause(lease, pause).await? {
                return Ok(end);
            }
        }
        loop {
            if self.stop.is_cancelled() {
                return Ok(EndOfWork::Stopped);
            }
            let read =
                self.service.events.window(&cursor, WINDOW_EVENTS, &types, RENEW_INTERVAL).await;
            let (events, next) = match read {
                Ok(window) => window,
                Err(events::Error::Expired | events::Error::OtherInstallation) => {
                    return self.disable(lease, "cursor_expired").await;
                }
                Err(error) => return Err(error.into()),
            };
            let has_events = !events.is_empty();
            // Nothing is sent by a definition that an operator has replaced.
            if has_events && !lease.renew(&self.service.mysql).await? {
                return Ok(EndOfWork::LeaseLost);
            }
            let oldest = events.first().map(|(_, event)| event.timestamp);
            Self::record_lag(&lease.id, oldest);
            let mut left: Vec<WindowEvent> = events
                .into_iter()
                .map(|(subject, event)| WindowEvent {
                    subject,
                    kind: event.r#type.as_str(),
                    message: WebhookMessage {
                        id: event.id.clone(),
                        body: serde_json::to_vec(&event).unwrap_or_default().into(),
                    },
                })
                .collect();
            while !left.is_empty() {
                let Some(outcome) = self.send_window(webhook, lease, left).await? else {
                    return Ok(EndOfWork::LeaseLost);
                };
                sql::add_deliveries(&self.service.mysql, &lease.id, &outcome.deliveries).await?;
                left = outcome.left;
                if outcome.is_gone {
                    return self.disable(lease, "gone").await;
                }
                if left.is_empty() {
                    break;
                }
                if self.stop.is_cancelled() {
                    return Ok(EndOfWork::Stopped);
                }
                failures += 1;
                let since = *failing_since.get_or_insert_with(now);
                let failing = (now() - since).to_std().unwrap_or_default();
                if failing >= self.retries.give_up_after {
                    return self.disable(lease, "failing").await;
                }
                // Up to a fifth shorter, so that many endpoints are not called at once.
                let pause = self.retries.pause(failures).mul_f64(rand::random_range(0.8..1.0));
                let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                if !lease.fail(&self.service.mysql, millis).await? {
                    return Ok(EndOfWork::LeaseLost);
                }
                if let Some(end) = self.pause(lease, pause).await? {
                    return Ok(end);
                }
            }
            (failures, failing_since) = (0, None);
            let kept = if next == cursor {
                lease.renew(&self.service.mysql).await?
            } else {
                lease.advance(&self.service.mysql, &next.to_string(), has_events).await?
            };
            if !kept {
                return Ok(EndOfWork::LeaseLost);
            }
            cursor = next;
        }
    }

    async fn disable(&self, lease: &WebhookLease, reason: &str) -> Result<EndOfWork, Error> {
        let disabled = lease.disable(&self.service.mysql, reason).await?;
        Ok(if disabled { EndOfWork::Disabled } else { EndOfWork::LeaseLost })
    }

    /// Waits with the lease. Returns why the work ends meanwhile, if it does.
    async fn pause(
        &self,
        lease: &WebhookLease,
        pause: Duration,
    ) -> Result<Option<EndOfWork>, Error> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let step = tokio::time::sleep(left.min(RENEW_INTERVAL));
            if self.stop.run_until_cancelled(step).await.is_none() {
                return Ok(Some(EndOfWork::Stopped));
            }
            if !lease.renew(&self.service.mysql).await? {
                return Ok(Some(EndOfWork::LeaseLost));
            }
        }
    }

    /// Sends the events of a window while it renews the lease. `None` when the lease is lost.
    async fn send_window(
        &self,
        webhook: &StoredWebhook,
        lease: &WebhookLease,
        events: Vec<WindowEvent>,
    ) -> Result<Option<WindowOutcome>, Error> {
        let sending = self.send_all(webhook, events);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                outcome = &mut sending => return Ok(Some(outcome)),
                () = tokio::time::sleep(RENEW_INTERVAL) => {
                    if !lease.renew(&self.service.mysql).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Sends events: those of different subjects at the same time, those of one in order.
    async fn send_all(&self, webhook: &StoredWebhook, events: Vec<WindowEvent>) -> WindowOutcome {
        let mut order: Vec<EventSubject> = Vec::new();
        let mut by_subject: HashMap<EventSubject, Vec<WindowEvent>> = HashMap::new();
        for event in events {
            let of_subject = by_subject.entry(event.subject.clone()).or_insert_with(|| {
                order.push(event.subject.clone());
                Vec::new()
            });
            of_subject.push(event);
        }
        let secrets = webhook.secrets();
        let does_not_answer = AtomicBool::new(false);
        let lines = order.into_iter().filter_map(|subject| by_subject.remove(&subject));
        let sends = lines.map(|line| async {
            let (mut left, mut deliveries, mut has_failed) = (Vec::new(), Vec::new(), false);
            for event in line {
                if has_failed || does_not_answer.load(Ordering::Relaxed) || self.stop.is_cancelled()
                {
                    left.push(event);
                    continue;
                }
                let began = Instant::now();
                let timeout = self.retries.attempt_timeout;
                let sender = &self.service.sender;
                let outcome = sender.send(&webhook.url, &secrets, &event.message, timeout).await;
                let duration_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
                count(&webhook.id, &outcome);
                if matches!(outcome, DeliveryOutcome::Failed(_)) || outcome.is_gone() {
                    // The next one would fail, too.
                    does_not_answer.store(true, Ordering::Relaxed);
                }
                has_failed = !outcome.is_success();
                deliveries.push(NewDelivery {
                    event_id: event.message.id.clone(),
                    event_type: event.kind,
                    outcome,
                    duration_ms,
                });
                if has_failed {
                    left.push(event);
                }
            }
            (left, deliveries)
        });
        let sent: Vec<_> =
            futures::stream::iter(sends).buffer_unordered(MAX_CONCURRENT_MESSAGES).collect().await;
        let (left, deliveries): (Vec<_>, Vec<_>) = sent.into_iter().unzip();
        let deliveries: Vec<NewDelivery> = deliveries.into_iter().flatten().collect();
        WindowOutcome {
            left: left.into_iter().flatten().collect(),
            is_gone: deliveries.iter().any(|delivery| delivery.outcome.is_gone()),
            deliveries,
        }
    }

    fn record_lag(webhook: &str, oldest: Option<UnixMillis>) {
        let millis = oldest.map_or(0, |oldest| (now().timestamp_millis() - oldest.0).max(0));
        #[expect(clippy::cast_precision_loss, reason = "some days")]
        let seconds = millis as f64 / 1_000.0;
        Metric::WebhookLagSeconds.gauge(&[("webhook", webhook)]).set(seconds);
    }
}

impl WebhookService {
    /// Sets the gauges.
    async fn report(&self) {
        let webhooks = match sql::all(&self.mysql).await {
            Ok(webhooks) => webhooks,
            Err(error) => return tracing::debug!(%error, "could not read the webhooks"),
        };
        let mut disabled = 0.0;
        for webhook in &webhooks {
            let failing = webhook.failing_since.filter(|_| webhook.active);
            let seconds = failing.map_or(0, |since| (webhook.now - since).num_seconds());
            let labels = [("webhook", webhook.id.as_str())];
            #[expect(clippy::cast_precision_loss, reason = "seconds of some days")]
            Metric::WebhookFailingSeconds.gauge(&labels).set(seconds as f64);
            if webhook.disabled_reason.is_some() {
                disabled += 1.0;
            }
        }
        Metric::WebhooksDisabled.gauge(&[]).set(disabled);
    }
}

fn count(webhook: &str, outcome: &DeliveryOutcome) {
    let result = match outcome {
        DeliveryOutcome::Answered(200..=299) => "delivered",
        DeliveryOutcome::Answered(_) => "refused",
        DeliveryOutcome::Failed(_) => "failed",
    };
    let labels = [("webhook", webhook), ("outcome", result)];
    Metric::WebhookAttemptsTotal.counter(&labels).increment(1);
}
