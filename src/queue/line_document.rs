//! The line of a queue as one JSON document for all users.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::line_shape::LineShape;
use super::settings::{LocalizedText, QueueMode, QueueSettings};
use super::snapshot::Snapshot;
use crate::ids::QueueId;
use crate::time::UnixMillis;

/// The name of the lane of a queue without lanes.
const DEFAULT_LANE: &str = "default";
/// The key of a message without a language (BCP 47: undetermined).
const UNDETERMINED_LANGUAGE: &str = "und";
/// When clients read the document again while users are admitted, in milliseconds.
const MOVING_LINE_MS: u32 = 1_000;
/// The same while no user is admitted.
const STANDING_LINE_MS: u32 = 2_000;

/// The line of a queue: what every waiting user needs to compute their own position.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Line)]
pub(super) struct LineDocument {
    queue_id: QueueId,
    /// Rises over all instances, and changes only when something other than `at` changes. Ignore a
    /// document with a lower version than one already seen.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    version: u64,
    /// When the state of this version was read.
    at: UnixMillis,
    /// The effective mode.
    mode: QueueMode,
    opens_at: Option<UnixMillis>,
    closes_at: Option<UnixMillis>,
    /// The operator's message by language. A message without a language has the key `und`.
    messages: BTreeMap<String, String>,
    /// The number of waiting users.
    waiting: u64,
    /// The lanes, first to last. A queue without lanes has one, `default`.
    lanes: Vec<LineLane>,
    /// When to read the document again, in milliseconds from now.
    next_ms: u32,
}

/// A part of the queue in which the order is exact.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Lane)]
struct LineLane {
    /// The name of the lane.
    name: String,
    /// The lowest waiting score. Null while the lane is empty, before the draw of a lottery, and
    /// while users return after a loss of Redis.
    front: Option<u64>,
    /// Pairs of a score, in ascending order, and the number of users who wait below it.
    #[schema(value_type = Vec<Vec<u64>>)]
    marks: Vec<(u64, u64)>,
    /// The number of waiting users.
    waiting: u64,
    /// How many users were admitted per second, measured over some seconds.
    admitted_per_second: f64,
}

impl LineDocument {
    /// The document without version, time and rate, which Redis gives it.
    pub(super) fn new(queue_id: &QueueId, settings: &QueueSettings, snapshot: &Snapshot) -> Self {
        let state = &snapshot.state;
        let LineShape { front, marks } = LineShape::of(snapshot);
        let lane = LineLane {
            name: DEFAULT_LANE.to_owned(),
            front,
            marks,
            waiting: state.waiting,
            admitted_per_second: 0.0,
        };
        let is_moving = state.mode == QueueMode::Open;
        let next_ms = if is_moving { MOVING_LINE_MS } else { STANDING_LINE_MS };
        Self {
            queue_id: queue_id.clone(),
            version: 0,
            at: UnixMillis(0),
            mode: state.mode,
            opens_at: settings.opens_at.map(UnixMillis::from),
            closes_at: settings.closes_at.map(UnixMillis::from),
            messages: settings.message.as_ref().map(messages).unwrap_or_default(),
            waiting: state.waiting,
            lanes: vec![lane],
            // A user who reads the document on time does not lose the slot.
            next_ms: next_ms.min(settings.claim_seconds.saturating_mul(500)),
        }
    }

    pub(super) fn to_json(&self) -> String {
        // A struct of numbers and strings has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn messages(message: &LocalizedText) -> BTreeMap<String, String> {
    match message {
        LocalizedText::Text(text) => [(UNDETERMINED_LANGUAGE.to_owned(), text.clone())].into(),
        LocalizedText::ByLanguage(texts) => texts.clone(),
    }
}

/// A published document with its version, time and rate.
pub(super) fn complete(document: &str, published: &super::line_store::PublishedLine) -> String {
    let Ok(mut json) = serde_json::from_str::<serde_json::Value>(document) else {
        return document.to_owned();
    };
    json["version"] = published.version.into();
    json["at"] = serde_json::to_value(UnixMillis(published.at)).unwrap_or_default();
    for lane in json["lanes"].as_array_mut().into_iter().flatten() {
        lane["admitted_per_second"] = published.admitted_per_second.into();
    }
    json.to_string()
}
