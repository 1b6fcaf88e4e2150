//! The call of `queue/publish_line`.

use crate::ids::QueueId;
use crate::redis::{Error, KeyScope, RedisClient, ScriptArgs, scripts};

use super::snapshot::Snapshot;

/// A version of the line document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PublishedLine {
    pub(super) version: u64,
    /// When its snapshot was taken, in milliseconds since 1970.
    pub(super) at: i64,
    pub(super) admitted_per_second: f64,
    /// The document of another instance, if that is newer.
    pub(super) document: Option<String>,
}

/// `queue/publish_line`.
pub(super) async fn publish_line(
    redis: &RedisClient,
    queue: &QueueId,
    snapshot: &Snapshot,
    document: &str,
) -> Result<PublishedLine, Error> {
    let mut args = ScriptArgs::new();
    args.int(snapshot.state.now).int(snapshot.markers_at);
    args.text(&snapshot.admitted_total.to_string()).text(document);
    let scope = KeyScope::queue(redis.keys(), queue);
    let mut reply = redis.call(&scripts::QUEUE_PUBLISH_LINE, scope, args).await?.words()?;
    let (version, at, rate) = (reply.count()?, reply.int()?, reply.text()?);
    let admitted_per_second =
        rate.parse().map_err(|_| Error::Protocol(format!("malformed rate {rate}")))?;
    let document = Some(reply.text()?).filter(|document| !document.is_empty());
    Ok(PublishedLine { version, at, admitted_per_second, document })
}
