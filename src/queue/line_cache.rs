//! Keeps the line document of each queue, encoded once per version for all requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use axum::body::Bytes;

use super::line_document::{LineDocument, complete};
use super::line_store::publish_line;
use super::{Error, QueueService, QueueSettings};
use crate::edge::compression::{self, ContentCoding};
use crate::ids::QueueId;

/// A document that was read this long ago is read again for the next request.
const LINE_REFRESH_AGE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct LineCache(Mutex<HashMap<QueueId, Arc<CachedLine>>>);

#[derive(Default)]
struct CachedLine {
    latest: ArcSwapOption<(Instant, Arc<EncodedLine>)>,
    /// Held during a refresh, so that there is one at a time.
    refreshing: tokio::sync::Mutex<()>,
}

/// The bytes of one version.
#[derive(Debug)]
pub(super) struct EncodedLine {
    pub(super) version: u64,
    pub(super) json: Bytes,
    /// Each coding with its bytes. Empty for a document that is too short.
    pub(super) encoded: Vec<(ContentCoding, Bytes)>,
}

impl LineCache {
    fn of(&self, queue: &QueueId) -> Arc<CachedLine> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = all.get(queue) {
            return cached.clone();
        }
        all.entry(queue.clone()).or_default().clone()
    }

    /// Drops all documents, so that the next one has the changed settings.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl CachedLine {
    fn fresh(&self) -> Option<Arc<EncodedLine>> {
        let latest = self.latest.load();
        let (read_at, line) = &**latest.as_ref()?;
        (read_at.elapsed() < LINE_REFRESH_AGE).then(|| line.clone())
    }
}

impl QueueService {
    /// The line document of a queue that is not private.
    pub(super) async fn line(self: &Arc<Self>, id: &QueueId) -> Result<Arc<EncodedLine>, Error> {
        let published = self.find_settings(id).await?;
        if published.settings.private {
            return Err(Error::NotFound);
        }
        let cached = self.lines.of(id);
        match cached.fresh() {
            Some(line) => Ok(line),
            None => Box::pin(self.refresh_line(id, &published.settings, &cached)).await,
        }
    }

    async fn refresh_line(
        self: &Arc<Self>,
        id: &QueueId,
        settings: &QueueSettings,
        cached: &CachedLine,
    ) -> Result<Arc<EncodedLine>, Error> {
        let _refreshing = cached.refreshing.lock().await;
        // Another request may have refreshed it while this one waited for the lock.
        if let Some(line) = cached.fresh() {
            return Ok(line);
        }
        let read_at = Instant::now();
        let snapshot = self.snapshot(id).await?;
        let own = LineDocument::new(id, settings, &snapshot).to_json();
        let published =
            self.with_settings(id, || publish_line(&self.redis, id, &snapshot, &own)).await?;
        let latest = cached.latest.load_full();
        let line = match latest.as_ref().filter(|latest| latest.1.version == published.version) {
            Some(latest) => latest.1.clone(),
            None => {
                let document = published.document.as_deref().unwrap_or(&own);
                Arc::new(encode(published.version, complete(document, &published)).await)
            }
        };
        cached.latest.store(Some(Arc::new((read_at, line.clone()))));
        Ok(line)
    }
}

async fn encode(version: u64, json: String) -> EncodedLine {
    let json = Bytes::from(json);
    let encoded = compression::encode(&json).await;
    EncodedLine { version, json, encoded }
}
