//! The settings of a queue, as the API, MySQL and the scripts have them.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};

use super::page::{self, QueuePage};
use super::rules;
use super::sql::StoredDraw;
use crate::definition::{AdminDefinition, DefinitionViolation};
use crate::ids::QueueId;
use crate::redis::ScriptArgs;

/// Whether a queue accepts joins and admits users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = QueueMode)]
pub enum QueueMode {
    /// Users can join and are admitted.
    Open,
    /// Users can join, but are not admitted.
    Paused,
    /// Users join the pre-queue and are not admitted before the opening.
    Prequeue,
    /// Users can neither join nor be admitted. Waiting users keep their places and active users
    /// keep their slots.
    Closed,
}

impl QueueMode {
    /// The word in the API, MySQL and the scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Prequeue => "prequeue",
            Self::Closed => "closed",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Open, Self::Paused, Self::Prequeue, Self::Closed]
            .into_iter()
            .find(|mode| mode.as_str() == word)
    }
}

/// How places in the pre-queue are assigned. After the opening, places are always assigned in order
/// of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = QueueOrder)]
pub enum QueueOrder {
    /// In order of arrival.
    Fifo,
    /// At random, derived from a seed that is fixed before the opening.
    Lottery,
}

impl QueueOrder {
    /// The word in the API, MySQL and the scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Lottery => "lottery",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Fifo, Self::Lottery].into_iter().find(|order| order.as_str() == word)
    }
}

/// When the visit of an active user ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = VisitKind)]
pub enum VisitKind {
    /// `active_seconds` after the user has shown up.
    Fixed,
    /// `active_seconds` after the last use.
    Sliding,
}

impl VisitKind {
    /// The word in the API, MySQL and the scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Sliding => "sliding",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Fixed, Self::Sliding].into_iter().find(|visit| visit.as_str() == word)
    }
}

/// A text for the users of a queue: one for all, or one by language (`ko`, `en`, `pt-BR`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = LocalizedText)]
pub enum LocalizedText {
    Text(String),
    ByLanguage(BTreeMap<String, String>),
}

impl LocalizedText {
    /// The text in the language that the client prefers: exact or by its first subtag, else
    /// English, else the first language.
    pub(super) fn text(&self, preferred: &[String]) -> Option<&str> {
        let texts = match self {
            Self::Text(text) => return Some(text),
            Self::ByLanguage(texts) => texts,
        };
        let primary = |tag: &str| tag.split('-').next().unwrap_or_default().to_ascii_lowercase();
        let find = |wanted: &str| {
            let exact = texts.iter().find(|(tag, _)| tag.eq_ignore_ascii_case(wanted));
            exact.or_else(|| texts.iter().find(|(tag, _)| primary(tag) == primary(wanted)))
        };
        let found = preferred.iter().find_map(|wanted| find(wanted));
        found.or_else(|| find("en")).or_else(|| texts.iter().next()).map(|(_, text)| text.as_str())
    }
}

/// The settings of a queue. An omitted field takes its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = QueueSettings)]
pub struct QueueSettings {
    /// The mode that the operator sets. The effective mode also depends on the times below.
    pub mode: QueueMode,
    /// The maximum number of admissions within any interval, 1…1,000,000.
    pub promote_per_interval: u32,
    /// The interval in milliseconds, 100…3,600,000.
    pub interval_ms: u32,
    /// The maximum number of active users, 1…10,000,000.
    pub max_active: u32,
    /// How long an active slot lasts after its user has shown up, in seconds, 1…86,400.
    pub active_seconds: u32,
    /// How long an admitted user has to show up, in seconds, 1…86,400.
    pub claim_seconds: u32,
    /// The maximum number of waiting users, 1…100,000,000. Null means unlimited.
    pub max_waiting: Option<u32>,
    /// No user is admitted before this time. Null means no limit.
    pub opens_at: Option<DateTime<Utc>>,
    /// The queue is closed from this time on. Null means never.
    pub closes_at: Option<DateTime<Utc>>,
    /// Users can join the pre-queue from this time on. Null means immediately.
    pub prequeue_starts_at: Option<DateTime<Utc>>,
    pub order: QueueOrder,
    /// After a loss of Redis, no user is admitted for this time, in seconds, 0…3,600. Users who
    /// poll with an older token get their previous place back.
    pub restore_seconds: u32,
    /// A message to all users of the queue, up to 500 characters, or one by language. Null means
    /// none.
    pub message: Option<LocalizedText>,
    /// Whether a visit ends `active_seconds` after it began, or after its last use.
    pub visit: VisitKind,
    /// The maximum length of a visit in seconds, 60…86,400. Null means no limit.
    pub visit_limit_seconds: Option<u32>,
    /// How the built-in waiting page looks. Null means the default page.
    #[serde(deserialize_with = "page::object_or_null")]
    pub page: Option<QueuePage>,
    /// A waiting user who neither polls nor streams for this time loses the place, in seconds,
    /// 30…86,400. Null means never.
    pub abandon_after_seconds: Option<u32>,
    /// Whether the line document of the queue is hidden.
    pub private: bool,
}

impl AdminDefinition for QueueSettings {
    const KIND: &'static str = "queues";
}

impl QueueSettings {
    /// Whether the queue has not opened yet at `now`, in milliseconds since 1970. A pause does not
    /// change that.
    pub(super) fn is_before_opening(&self, now: i64) -> bool {
        match self.opens_at {
            Some(opens_at) => now < opens_at.timestamp_millis(),
            None => self.mode == QueueMode::Prequeue,
        }
    }

    /// How long a waiting user keeps the place without polling.
    pub(super) fn abandon_after(&self) -> Option<Duration> {
        self.abandon_after_seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// The settings as MySQL stores them and the admin API returns them: times in milliseconds.
    ///
    /// # Errors
    /// The rules that the settings break.
    pub fn normal_form(self) -> Result<Self, Vec<DefinitionViolation>> {
        let violations = rules::violations(&self);
        if !violations.is_empty() {
            return Err(violations);
        }
        let millis = |time: Option<DateTime<Utc>>| time.map(|time| time.trunc_subsecs(3));
        Ok(Self {
            opens_at: millis(self.opens_at),
            closes_at: millis(self.closes_at),
            prequeue_starts_at: millis(self.prequeue_starts_at),
            ..self
        })
    }

    /// Whether users who join at `now` take part in a draw.
    pub(super) fn is_lottery(&self, now: i64) -> bool {
        self.order == QueueOrder::Lottery && self.is_before_opening(now)
    }

    /// Whether the draw that was open under `before` goes on under these settings: only a pause
    /// and settings that do not concern the opening may change.
    pub(super) fn continues_draw(&self, before: &Self, now: i64) -> bool {
        let closed = |settings: &Self| settings.mode == QueueMode::Closed;
        before.is_lottery(now)
            && self.is_lottery(now)
            && self.opens_at == before.opens_at
            && closed(self) == closed(before)
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            mode: QueueMode::Open,
            promote_per_interval: 100,
            interval_ms: 1_000,
            max_active: 1_000,
            active_seconds: 300,
            claim_seconds: 60,
            max_waiting: None,
            opens_at: None,
            closes_at: None,
            prequeue_starts_at: None,
            order: QueueOrder::Fifo,
            restore_seconds: 30,
            message: None,
            visit: VisitKind::Fixed,
            visit_limit_seconds: None,
            page: None,
            abandon_after_seconds: None,
            private: false,
        }
    }
}

/// The settings of a queue as stored in MySQL and published to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedQueue {
    pub settings: QueueSettings,
    /// The version of the definitions at the last change of these settings.
    pub version: u64,
    /// 32 hexadecimal digits from which the scores of the newest draw are derived. Secret until the
    /// opening.
    pub seed: String,
    /// The number of the newest draw. 0 before the first.
    pub draw: u32,
    /// How many scores a deleted queue of this name gave to arrivals.
    pub arrivals: u64,
}

impl PublishedQueue {
    /// The newest draw as it is recorded before it takes place.
    pub(super) fn newest_draw(&self) -> StoredDraw {
        StoredDraw {
            draw: self.draw,
            seed: self.seed.clone(),
            opens_at: self.settings.opens_at,
            drawn_at: None,
            entrants: None,
        }
    }

    /// The queue, the version, the arrivals and the fields that `lua/lib/settings.lua` reads.
    pub(super) fn to_args(&self, queue: &QueueId) -> ScriptArgs {
        let settings = &self.settings;
        let millis = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_millis());
        let mut args = ScriptArgs::new();
        args.text(queue.as_str()).text(&self.version.to_string()).text(&self.arrivals.to_string());
        args.text("mode").text(settings.mode.as_str());
        args.text("per_interval").int(settings.promote_per_interval.into());
        args.text("interval_ms").int(settings.interval_ms.into());
        args.text("max_active").int(settings.max_active.into());
        args.text("active_ms").int(i64::from(settings.active_seconds) * 1_000);
        args.text("claim_ms").int(i64::from(settings.claim_seconds) * 1_000);
        args.text("max_waiting").optional_int(settings.max_waiting.map(i64::from));
        args.text("opens_at").optional_int(millis(settings.opens_at));
        args.text("closes_at").optional_int(millis(settings.closes_at));
        args.text("prequeue_starts_at").optional_int(millis(settings.prequeue_starts_at));
        args.text("placement").text(settings.order.as_str());
        args.text("seed").text(&self.seed);
        args.text("draw").int(self.draw.into());
        args.text("visit").text(settings.visit.as_str());
        let ms = |seconds: Option<u32>| seconds.map(|seconds| i64::from(seconds) * 1_000);
        args.text("visit_limit_ms").optional_int(ms(settings.visit_limit_seconds));
        args.text("abandon_ms").optional_int(ms(settings.abandon_after_seconds));
        args
    }
}
