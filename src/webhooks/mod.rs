//! Webhooks: events delivered to endpoints of other systems over HTTP.
//!
//! A webhook is a row of MySQL: URL, types, secret, and the cursor behind what is delivered. Any
//! instance delivers, and a lease in MySQL makes sure that it is one at a time. It reads a window of
//! events, delivers those of different subjects at the same time and those of one subject in order,
//! and then stores the cursor. When it dies, another one delivers the window again. A failed attempt
//! is repeated after growing pauses; nothing is skipped.
//!
//! - `secret`: signatures, after Standard Webhooks.
//! - `url_rules`, `sender`: where and how a message is sent.
//! - `delivery`: the loop.
//! - `routes`, `dto`: the admin API.
//! - `sql`: SQL, and the lease.

mod delivery;
mod dto;
mod routes;
mod secret;
mod sender;
mod sql;
mod url_rules;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::events::{self, EventService};
use crate::ids::WebhookId;
use crate::outbox::event_type::EventType;
use crate::store_error::{StoreError, from_store_errors};
use crate::tls;
use secret::WebhookSecret;
use sender::WebhookSender;
use sql::StoredWebhook;

pub use routes::router;

/// Webhooks of an installation.
const MAX_WEBHOOKS: i64 = 100;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such webhook")]
    NotFound,
    #[error("{field} {rule}")]
    Invalid { field: &'static str, rule: &'static str },
    #[error(transparent)]
    Events(#[from] events::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);

/// When an attempt ends, and when the next one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySchedule {
    pub attempt_timeout: Duration,
    /// The pause after the first failure. Each further one is three times as long.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// A webhook that fails for this time is disabled.
    pub give_up_after: Duration,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3_600);
        Self {
            attempt_timeout: Duration::from_secs(15),
            first_pause: Duration::from_secs(5),
            longest_pause: 6 * HOUR,
            give_up_after: 72 * HOUR,
        }
    }
}

impl RetrySchedule {
    /// The pause after some failed attempts in a row, before jitter.
    fn pause(&self, failures: u32) -> Duration {
        let factor = 3_u32.saturating_pow(failures.saturating_sub(1));
        self.first_pause.saturating_mul(factor).min(self.longest_pause)
    }
}

/// Defines webhooks and delivers to them. One value per process.
pub struct WebhookService {
    mysql: MySqlPool,
    events: Arc<EventService>,
    sender: WebhookSender,
    allow_private: bool,
}

impl WebhookService {
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(
        mysql: MySqlPool,
        events: Arc<EventService>,
        allow_private: bool,
    ) -> Result<Self, tls::Error> {
        let sender = WebhookSender::new(allow_private)?;
        Ok(Self { mysql, events, sender, allow_private })
    }

    /// Delivers until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, retries: RetrySchedule, stop: CancellationToken) {
        delivery::run(self, retries, stop).await;
    }

    async fn find(&self, id: &WebhookId) -> Result<StoredWebhook, Error> {
        sql::one(&self.mysql, id.as_str()).await?.ok_or(Error::NotFound)
    }
}

impl StoredWebhook {
    /// The secrets that sign now, the newest first.
    fn secrets(&self) -> Vec<WebhookSecret> {
        let texts = std::iter::once(&self.secret).chain(&self.old_secret);
        texts.filter_map(|text| WebhookSecret::parse(text).ok()).collect()
    }

    fn wanted_types(&self) -> BTreeSet<EventType> {
        self.types.split(',').filter_map(EventType::named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_threefold_up_to_six_hours() {
        let schedule = RetrySchedule::default();
        let seconds: Vec<u64> = (1..=10).map(|nth| schedule.pause(nth).as_secs()).collect();
        assert_eq!(seconds, [5, 15, 45, 135, 405, 1_215, 3_645, 10_935, 21_600, 21_600]);
        assert_eq!(schedule.pause(u32::MAX), schedule.longest_pause);
    }
}
