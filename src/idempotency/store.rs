//! The scripts of idempotency keys.

use super::KeyedRequest;
use crate::partition::Partition;
use crate::redis::{
    BatchOperation, Error, KeyScope, LuaScript, RedisClient, ScriptArgs, ScriptReply, scripts,
};

/// A key and the thing that its request makes.
pub(super) struct KeyBinding {
    pub(super) keyed: KeyedRequest,
    pub(super) thing: [u8; 16],
}

/// What a key is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindOutcome {
    /// To the thing of this request, now.
    Now,
    /// To another thing, by the same request before.
    Before([u8; 16]),
    /// To another request.
    Elsewhere,
}

/// `idempotency/bind`.
pub(super) struct BindBatch(pub(super) RedisClient);

impl BatchOperation for BindBatch {
    type Entity = Partition;
    type Request = KeyBinding;
    type Answer = BindOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::IDEMPOTENCY_BIND
    }

    async fn call(
        &self,
        partition: &Partition,
        bindings: &[KeyBinding],
    ) -> Result<Vec<BindOutcome>, Error> {
        let mut args = ScriptArgs::new();
        for KeyBinding { keyed, thing } in bindings {
            args.bytes(keyed.user.as_bytes())
                .text(&keyed.key)
                .bytes(&keyed.fingerprint)
                .bytes(thing);
        }
        let words =
            self.0.call(self.script(), KeyScope::partition(*partition), args).await?.words()?;
        words.rest().map(bound).collect()
    }
}

fn bound(reply: ScriptReply) -> Result<BindOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 => BindOutcome::Now,
        2 => BindOutcome::Before(sixteen(words.word()?)?),
        _ => BindOutcome::Elsewhere,
    })
}

fn sixteen(word: ScriptReply) -> Result<[u8; 16], Error> {
    let bytes = word.bytes()?;
    bytes.as_ref().try_into().map_err(|_| Error::Protocol("wanted sixteen bytes".into()))
}

/// `idempotency/release`.
pub(super) async fn release(
    redis: &RedisClient,
    keyed: &KeyedRequest,
    thing: [u8; 16],
) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.bytes(keyed.user.as_bytes()).text(&keyed.key).bytes(&thing);
    let place = KeyScope::partition(redis.keys().partition(keyed.user.slot()));
    redis.call(&scripts::IDEMPOTENCY_RELEASE, place, args).await.map(drop)
}
