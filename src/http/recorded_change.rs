//! What a call of the admin API has changed, from the handler to the audit log.

use axum::Extension;
use serde::Serialize;
use serde_json::{Value, json};

/// A longer value is not recorded.
const MAX_RECORDED_BYTES: usize = 64 << 10;

/// The object before and after a call, in an extension of the response.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordedChange {
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl RecordedChange {
    /// `None` for an object that does not exist.
    pub fn new(before: Option<&impl Serialize>, after: Option<&impl Serialize>) -> Self {
        Self { before: before.map(record), after: after.map(record) }
    }

    /// The object existed before the call only.
    pub fn deleted(before: &impl Serialize) -> Extension<Self> {
        Extension(Self { before: Some(record(before)), after: None })
    }
}

fn record(object: &impl Serialize) -> Value {
    let value = serde_json::to_value(object).unwrap_or_default();
    let length = value.to_string().len();
    if length > MAX_RECORDED_BYTES { json!({ "omitted_bytes": length }) } else { value }
}
