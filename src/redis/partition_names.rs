//! Scripts without arguments that list names of one partition.

use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use super::{BatchOperation, Error, KeyScope, LuaScript, RedisClient, ScriptArgs};
use crate::partition::Partition;

/// Calls such a script. One call answers all requests that wait for it.
pub struct PartitionNamesBatch<T> {
    redis: RedisClient,
    script: &'static LuaScript,
    names: PhantomData<fn() -> T>,
}

impl<T> PartitionNamesBatch<T> {
    pub fn new(redis: &RedisClient, script: &'static LuaScript) -> Self {
        Self { redis: redis.clone(), script, names: PhantomData }
    }
}

impl<T: FromStr + Send + Sync + 'static> BatchOperation for PartitionNamesBatch<T> {
    type Entity = Partition;
    type Request = ();
    type Answer = Arc<Vec<T>>;

    fn script(&self) -> &'static LuaScript {
        self.script
    }

    async fn call(
        &self,
        partition: &Partition,
        requests: &[()],
    ) -> Result<Vec<Self::Answer>, Error> {
        let scope = KeyScope::partition(*partition);
        let mut words = self.redis.call(self.script, scope, ScriptArgs::new()).await?.words()?;
        let mut names = Vec::new();
        while !words.is_empty() {
            let name = words.text()?.parse();
            names.push(name.map_err(|_| Error::Protocol("expected a name".into()))?);
        }
        let names = Arc::new(names);
        Ok(requests.iter().map(|()| names.clone()).collect())
    }
}
