//! Users: the string of each id that is not a UUID.
//!
//! The stores hold the key of 16 bytes ([`UserId`]). The string is recorded with an event in the
//! outbox of the user's partition, before anything belongs to the user, and the writer inserts it
//! into `users`. Redis keeps no strings. Queue tokens contain them, so a join does not wait for the
//! recording, and a poll looks up nothing.
//!
//! [`UserDirectory::record`] asks Redis once per user and instance. After a loss of Redis the
//! partition has a new epoch, and a user of an older epoch is recorded once more.
//! [`UserDirectory::names`] gives lists the strings.

mod recent;
mod search;
mod sql;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::MySqlPool;

use crate::http::user_recorder::{UserRecorder, UserRecording};
use crate::ids::{UserId, UserName};
use crate::outbox::event::OutboxEvent;
use crate::outbox::{WriterHandle, pending_events};
use crate::redis::{self, Coalescer, PressureLevel, RedisClient, ScriptCoalescer, ScriptOperation};
use crate::store_error::StoreError;
use recent::{RecentUsers, RecordedText};

/// Requests that may wait for one partition in one instance.
const MAX_WAITING_REQUESTS: usize = 16_384;

/// What every outbox entry with a recorded user contains: the kind of the event.
const EVENT_KIND: &[u8] = b"user";

/// Records and finds the strings of ids. One value per process.
pub struct UserDirectory {
    redis: RedisClient,
    mysql: MySqlPool,
    writer: WriterHandle,
    record: ScriptCoalescer<store::RecordBatch>,
    recent: Mutex<RecentUsers>,
}

impl UserDirectory {
    pub fn new(redis: RedisClient, mysql: MySqlPool, writer: WriterHandle) -> Self {
        let record =
            Coalescer::new(ScriptOperation::new(&redis, store::RecordBatch), MAX_WAITING_REQUESTS);
        Self { redis, mysql, writer, record, recent: Mutex::default() }
    }

    /// Whether this instance has recorded the user in the Redis of today.
    fn is_recorded(&self, user: UserId) -> bool {
        let epoch = self.redis.epochs().get(self.redis.keys().partition(user.slot()));
        let known = self.recent(|recent| recent.get(user).map(|known| known.epoch));
        known.is_some() && known == epoch
    }

    /// Returns once the string of the user is recorded. While the stores are at their limit,
    /// nothing is recorded: users with holds are known, and new work is refused anyway.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn record(&self, name: &UserName) -> Result<(), redis::Error> {
        match name.text_to_record() {
            Some(text)
                if !self.is_recorded(name.key())
                    && self.redis.pressure().level() < PressureLevel::RefuseHolds =>
            {
                self.record_now(name.key(), text).await
            }
            _ => Ok(()),
        }
    }

    async fn record_now(&self, user: UserId, text: Arc<str>) -> Result<(), redis::Error> {
        let partition = self.redis.keys().partition(user.slot());
        // Read before the call: a later epoch could be one in which the event is lost.
        let epoch = self.redis.epochs().get(partition);
        self.record.submit(partition, (user, text.clone())).await?;
        self.writer.wake();
        if let Some(epoch) = epoch {
            self.recent(|recent| recent.insert(user, RecordedText { epoch, text }));
        }
        Ok(())
    }

    /// The ids of users as strings. A key whose string was lost with Redis is shown as a UUID.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn names(
        &self,
        users: impl IntoIterator<Item = UserId>,
    ) -> Result<UserNames, StoreError> {
        let mut texts = HashMap::new();
        let mut unknown: Vec<UserId> = users.into_iter().filter(|user| user.is_hashed()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        self.recent(|recent| {
            unknown.retain(|user| match recent.get(*user) {
                Some(known) => {
                    texts.insert(*user, known.text.clone());
                    false
                }
                None => true,
            });
        });
        if !unknown.is_empty() {
            // The outbox first: an event that leaves it in the meantime is in MySQL by then.
            texts.extend(self.pending(&unknown).await?);
            texts.extend(sql::texts(&self.mysql, &unknown).await?);
        }
        Ok(UserNames(texts))
    }

    async fn pending(&self, users: &[UserId]) -> Result<Vec<(UserId, Arc<str>)>, StoreError> {
        let partitions = users.iter().map(|user| self.redis.keys().partition(user.slot()));
        let (redis, mysql, writer) = (&self.redis, &self.mysql, &self.writer);
        let events = pending_events::load_all(redis, mysql, writer, partitions, EVENT_KIND).await?;
        let recorded = events.into_iter().filter_map(|(_, event)| match event {
            OutboxEvent::User(recorded) => Some((recorded.user, recorded.name.to_string().into())),
            _ => None,
        });
        Ok(recorded.collect())
    }

    fn recent<T>(&self, access: impl FnOnce(&mut RecentUsers) -> T) -> T {
        access(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl UserRecorder for Arc<UserDirectory> {
    fn record(&self, name: &UserName) -> Option<UserRecording> {
        if !name.key().is_hashed() || self.is_recorded(name.key()) {
            return None;
        }
        let (directory, name) = (self.clone(), name.clone());
        Some(Box::pin(async move { Ok(UserDirectory::record(&directory, &name).await?) }))
    }
}

/// The strings of some users.
#[derive(Debug, Default)]
pub struct UserNames(HashMap<UserId, Arc<str>>);

impl UserNames {
    pub fn of(&self, user: UserId) -> UserName {
        UserName::recorded(user, self.0.get(&user).cloned())
    }
}
