//! Batched scripts: one script call for many requests of one entity.
//!
//! A module describes its script by [`BatchScript`]: which keys, which arguments, and how the reply
//! becomes one answer for each request. [`ScriptOperation`] makes the call for all of them.

use std::hash::Hash;

use super::{
    BatchOperation, Coalescer, Error, KeyBuilder, KeyScope, LuaScript, RedisClient, ReplyReader,
    ScriptArgs,
};

/// A script that answers many requests of one entity in one call.
pub trait BatchScript: Send + Sync + 'static {
    /// What the requests of one call have in common.
    type Entity: Hash + Eq + Clone + Send + Sync + 'static;
    /// One request.
    type Request: Send + Sync + 'static;
    /// The answer to one request.
    type Answer: Send + 'static;

    /// The script.
    fn script(&self) -> &'static LuaScript;

    /// Where the keys of the call are.
    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a Self::Entity) -> KeyScope<'a>;

    /// Appends the arguments, in the order of the header's `ARGV:` line.
    ///
    /// # Errors
    /// [`Error::Protocol`] when a request cannot be encoded.
    fn write_args(
        &self,
        entity: &Self::Entity,
        requests: &[Self::Request],
        args: &mut ScriptArgs,
    ) -> Result<(), Error>;

    /// Reads one answer for each request, in order.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the reply is not as the header says.
    fn read_answers(
        &self,
        entity: &Self::Entity,
        requests: &[Self::Request],
        reply: ReplyReader,
    ) -> Result<Vec<Self::Answer>, Error>;
}

/// A [`BatchScript`] with the Redis it runs on.
pub struct ScriptOperation<B> {
    redis: RedisClient,
    batch: B,
}

/// A coalescer in front of a batched script.
pub type ScriptCoalescer<B> = Coalescer<ScriptOperation<B>>;

impl<B: BatchScript> ScriptOperation<B> {
    /// Runs `batch` on `redis`.
    pub fn new(redis: &RedisClient, batch: B) -> Self {
        Self { redis: redis.clone(), batch }
    }
}

impl<B: BatchScript> BatchOperation for ScriptOperation<B> {
    type Entity = B::Entity;
    type Request = B::Request;
    type Answer = B::Answer;

    fn script(&self) -> &'static LuaScript {
        self.batch.script()
    }

    async fn call(
        &self,
        entity: &B::Entity,
        requests: &[B::Request],
    ) -> Result<Vec<B::Answer>, Error> {
        let mut args = ScriptArgs::new();
        self.batch.write_args(entity, requests, &mut args)?;
        let scope = self.batch.scope(self.redis.keys(), entity);
        let reply = self.redis.call(self.batch.script(), scope, args).await?.words()?;
        self.batch.read_answers(entity, requests, reply)
    }
}
