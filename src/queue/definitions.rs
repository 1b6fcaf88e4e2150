//! Changes of a queue's settings: in MySQL under the row lock of the definitions, in Redis before the
//! commit, and in the memory of this instance.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::MySqlConnection;

use super::admission_jwt::{self, AdmissionJwtKeys};
use super::{
    Error, PublishedQueue, QueueService, QueueSettings, deletion_store, draw_store, sql, store,
};
use crate::definition::{ChangePreconditions, ChangedDefinition, DefinitionViolation};
use crate::http::merge_patch::{DefinitionChange, MergePatch};
use crate::ids::QueueId;
use crate::mysql::{self, definitions};

/// A draw takes two segments of scores, and scores are below 2^50.
const MAX_DRAWS: u32 = 500;

impl QueueService {
    /// Creates a queue, or replaces or patches its settings.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every violation, [`Error::PreconditionFailed`], or
    /// [`Error::NotFound`] for a patch. Nothing has changed then.
    pub async fn change(
        &self,
        queue: &QueueId,
        change: DefinitionChange<QueueSettings>,
        preconditions: &ChangePreconditions,
    ) -> Result<ChangedDefinition<QueueSettings>, Error> {
        if let DefinitionChange::Replace(settings) = &change {
            settings.clone().normal_form().map_err(Error::Invalid)?;
        }
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        let now = sql::now(&mut tx).await?;
        let at = now.timestamp_millis();
        let before = sql::one(&mut tx, queue).await?;
        let stored = before.as_ref().map(|before| &before.settings);
        let settings = change.resolve(queue.as_str(), stored, preconditions)?;
        let settings = settings.normal_form().map_err(Error::Invalid)?;
        let (mut draw, mut seed, arrivals) = match &before {
            Some(before) => (before.draw, before.seed.clone(), before.arrivals),
            None => self.inherited(&mut tx, queue).await?,
        };
        let unrecorded = draw_store::published_draw(&self.redis, queue)
            .await?
            .filter(|published| published.draw > draw);
        if let Some(unrecorded) = &unrecorded {
            sql::add_draw(&mut tx, queue, unrecorded).await?;
            (draw, seed) = (unrecorded.draw, unrecorded.seed.clone());
        }
        let continues = before.as_ref().is_some_and(|it| settings.continues_draw(&it.settings, at));
        let is_new_draw = settings.is_lottery(at) && (unrecorded.is_some() || !continues);
        if is_new_draw {
            if draw >= MAX_DRAWS {
                let message = "this queue has no more draws: create a new queue";
                return Err(Error::Invalid(vec![DefinitionViolation::new("order", message)]));
            }
            (draw, seed) = (draw + 1, new_seed());
        }
        let planned = settings.opens_at.filter(|opens_at| *opens_at > now);
        let drawn = (!settings.is_before_opening(at)).then_some(now);
        sql::move_open_draws(&mut tx, queue, planned, drawn, now).await?;
        let published = PublishedQueue { settings, version, seed, draw, arrivals };
        if is_new_draw {
            sql::add_draw(&mut tx, queue, &published.newest_draw()).await?;
        }
        sql::put(&mut tx, queue, &published).await?;
        store::publish(&self.redis, queue, &published).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await?;
        let before = before.map(|before| before.settings);
        Ok(ChangedDefinition { before, after: published.settings })
    }

    /// Creates a queue with default settings, unless it exists, in the transaction `tx` of another
    /// definition. The first call that misses the settings in Redis publishes them.
    pub async fn create_if_missing(
        &self,
        tx: &mut MySqlConnection,
        version: u64,
        queue: &QueueId,
    ) -> Result<(), Error> {
        if sql::one(tx, queue).await?.is_none() {
            let (draw, seed, arrivals) = self.inherited(tx, queue).await?;
            let settings = QueueSettings::default();
            let published = PublishedQueue { settings, version, seed, draw, arrivals };
            sql::put(tx, queue, &published).await?;
        }
        Ok(())
    }

    /// The newest draw, the seed and the arrivals with which a new queue begins. It continues the
    /// scores of a deleted queue of this name, of which nothing may be left in Redis.
    async fn inherited(
        &self,
        tx: &mut MySqlConnection,
        queue: &QueueId,
    ) -> Result<(u32, String, u64), Error> {
        let Some(deleted) = sql::deleted(tx, queue).await? else { return Ok((0, new_seed(), 0)) };
        deletion_store::delete(&self.redis, queue).await?;
        Ok((deleted.draw, deleted.seed, deleted.arrivals))
    }

    /// Reads all settings from MySQL.
    pub async fn reload(&self) -> Result<(), Error> {
        // One reload at a time: an older result must not replace a newer one.
        let _guard = self.reloading.lock().await;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let queues = sql::all(&mut connection)
            .await?
            .into_iter()
            .map(|(id, published)| (id, Arc::new(published)))
            .collect();
        let queues: Arc<HashMap<_, _>> = Arc::new(queues);
        self.snapshots.refresh_all(|queue| queues.contains_key(queue));
        self.busy.visit_all(queues.keys());
        self.queues.store(queues);
        self.lines.clear();
        let mut keys = AdmissionJwtKeys::new(&sql::pass_keys(&mut connection).await?);
        // The first instance of an installation creates the key. The lock keeps a second instance
        // from creating another one.
        if keys.is_empty() {
            drop(connection);
            let (mut tx, _) = definitions::lock(&self.mysql).await?;
            if sql::pass_keys(&mut tx).await?.is_empty() {
                admission_jwt::add_key(&mut tx).await?;
            }
            keys = AdmissionJwtKeys::new(&sql::pass_keys(&mut tx).await?);
            tx.commit().await.map_err(mysql::Error::from)?;
        }
        self.pass_keys.store(Arc::new(keys));
        Ok(())
    }

    /// Publishes the settings of MySQL to Redis.
    ///
    /// Redis may have a newer draw: its change was not committed, or MySQL went back. Users have
    /// scores of that draw, so MySQL records it, and later users get higher scores.
    pub async fn publish_settings(&self, queue: &QueueId) -> Result<(), Error> {
        let (mut tx, _) = definitions::lock(&self.mysql).await?;
        let Some(published) = sql::one(&mut tx, queue).await? else {
            drop(tx);
            self.reload().await?;
            return Err(Error::NotFound);
        };
        let newest = draw_store::published_draw(&self.redis, queue).await?;
        if newest.is_some_and(|newest| newest.draw > published.draw) {
            drop(tx);
            let same = DefinitionChange::Patch(MergePatch::default());
            return self.change(queue, same, &ChangePreconditions::default()).await.map(drop);
        }
        store::publish(&self.redis, queue, &published).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        Ok(())
    }
}

fn new_seed() -> String {
    format!("{:032x}", rand::random::<u128>())
}
