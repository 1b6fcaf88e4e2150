//! A queue's settings, as operators write them and Redis gets them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::redis::ScriptArgs;

/// What a queue does with those who come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = QueueMode)]
pub enum QueueMode {
    /// Joins and promotions go on.
    Open,
    /// Joins go on, nobody is promoted.
    Paused,
    /// Joins stand in the pre-queue, nobody is promoted.
    Prequeue,
    /// No joins, no promotions; places are kept, those inside may finish.
    Closed,
}

impl QueueMode {
    /// The word that the API, MySQL and the scripts use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Prequeue => "prequeue",
            Self::Closed => "closed",
        }
    }

    /// From that word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Open, Self::Paused, Self::Prequeue, Self::Closed]
            .into_iter()
            .find(|mode| mode.as_str() == word)
    }
}

/// How places in the pre-queue are dealt. After the opening it is first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = QueueOrder)]
pub enum QueueOrder {
    /// By arrival.
    Fifo,
    /// At random, from a seed that is fixed before the opening.
    Lottery,
}

impl QueueOrder {
    /// The word that the API, MySQL and the scripts use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Lottery => "lottery",
        }
    }

    /// From that word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Fifo, Self::Lottery].into_iter().find(|order| order.as_str() == word)
    }
}

/// A queue's settings. A field left out takes its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = QueueSettings)]
pub struct QueueSettings {
    /// What the operator asks for; the mode that holds also follows the times below.
    pub mode: QueueMode,
    /// At most so many are let in within any interval, 1…1,000,000.
    pub promote_per_interval: u32,
    /// The interval in milliseconds, 100…3,600,000.
    pub interval_ms: u32,
    /// Never more than so many are active, 1…10,000,000.
    pub max_active: u32,
    /// How long a slot lasts once its user has shown up, 1…86,400.
    pub active_seconds: u32,
    /// How long a promoted user has to show up, 1…86,400.
    pub claim_seconds: u32,
    /// How many may wait, 1…100,000,000; null is unlimited.
    pub max_waiting: Option<u32>,
    /// Nobody is promoted before it.
    pub opens_at: Option<DateTime<Utc>>,
    /// From here on the queue is closed.
    pub closes_at: Option<DateTime<Utc>>,
    /// Joins stand in the pre-queue from here on; null is at once.
    pub prequeue_starts_at: Option<DateTime<Utc>>,
    /// How places in the pre-queue are dealt.
    pub order: QueueOrder,
    /// After Redis lost its state nobody is let in for so long, and whoever shows a token from before takes the old place again, 0…3,600.
    pub restore_seconds: u32,
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
        }
    }
}

/// Settings as MySQL keeps them: with the version of the definitions that wrote them, and the seed of the lottery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedQueue {
    /// The settings.
    pub settings: QueueSettings,
    /// The definitions' version at their last change.
    pub version: u64,
    /// 32 hexadecimal digits from which the lottery's scores are derived. Secret until the opening.
    pub seed: String,
}

impl PublishedQueue {
    /// The fields that `lua/lib/settings.lua` reads.
    pub(super) fn to_args(&self) -> ScriptArgs {
        let settings = &self.settings;
        let millis = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_millis());
        let mut args = ScriptArgs::new();
        args.text(&self.version.to_string());
        args.text("mode").text(settings.mode.as_str());
        args.text("per_interval").int(settings.promote_per_interval.into());
        args.text("interval_ms").int(settings.interval_ms.into());
        args.text("max_active").int(settings.max_active.into());
        args.text("active_ms").int(i64::from(settings.active_seconds) * 1_000);
        args.text("claim_ms").int(i64::from(settings.claim_seconds) * 1_000);
        args.text("max_waiting").maybe_int(settings.max_waiting.map(i64::from));
        args.text("opens_at").maybe_int(millis(settings.opens_at));
        args.text("closes_at").maybe_int(millis(settings.closes_at));
        args.text("prequeue_starts_at").maybe_int(millis(settings.prequeue_starts_at));
        args.text("placement").text(settings.order.as_str());
        args.text("seed").text(&self.seed);
        args
    }
}
