//! The recorder of user ids, as extractors see it.
//!
//! The stores hold a key of 16 bytes for each user. The string of an id that is not a UUID must be
//! recorded before anything belongs to the user, so extractors of owners wait for it.

use std::sync::Arc;

use axum::http::request::Parts;
use futures::future::BoxFuture;

use super::problem::ProblemDetails;
use crate::ids::UserName;

/// Ends once a name is recorded.
pub type UserRecording = BoxFuture<'static, Result<(), ProblemDetails>>;

/// Records the strings of user ids.
pub trait UserRecorder: Send + Sync + 'static {
    /// Records a name. `None` when that is not necessary: for a UUID, and for a name that this
    /// instance has recorded before.
    fn record(&self, name: &UserName) -> Option<UserRecording>;
}

/// The recorder in the extensions of a request.
#[derive(Clone)]
pub struct UserRecorderExtension(pub Arc<dyn UserRecorder>);

/// Returns once the name is recorded.
///
/// # Errors
/// Those of Redis, and 500 `internal` when the router lacks the extension.
pub async fn record_user(parts: &Parts, name: &UserName) -> Result<(), ProblemDetails> {
    match start_recording(parts, name)? {
        Some(recording) => recording.await,
        None => Ok(()),
    }
}

/// Records a name while the request goes on: a place in a queue is no property, and the request
/// must not wait. A failure is not repeated here, because an owner is recorded again.
///
/// # Errors
/// 500 `internal` when the router lacks the extension.
pub fn record_user_in_background(parts: &Parts, name: &UserName) -> Result<(), ProblemDetails> {
    if let Some(recording) = start_recording(parts, name)? {
        tokio::spawn(recording);
    }
    Ok(())
}

fn start_recording(
    parts: &Parts,
    name: &UserName,
) -> Result<Option<UserRecording>, ProblemDetails> {
    if !name.key().is_hashed() {
        return Ok(None);
    }
    let UserRecorderExtension(recorder) = parts.extensions.get().ok_or_else(|| {
        tracing::error!("the router has no UserRecorderExtension");
        ProblemDetails::internal()
    })?;
    Ok(recorder.record(name))
}
