//! The scripts of idempotency keys, one function each.

use super::KeyedRequest;
use crate::partition::Partition;
use crate::redis::codes::IdempotencyBindCode;
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs,
    ScriptReply, scripts,
};

/// A key and the id of the resource that its request creates.
pub(super) struct KeyBinding {
    pub(super) keyed: KeyedRequest,
    pub(super) resource: [u8; 16],
}

/// The outcome of binding a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindOutcome {
    /// Bound to the resource of this request by this call.
    Bound,
    /// Bound to another resource by an earlier call of the same request.
    AlreadyBound([u8; 16]),
    /// The key belongs to another request.
    OtherRequest,
}

/// `idempotency/bind`.
pub(super) struct BindBatch;

impl BatchScript for BindBatch {
    type Entity = Partition;
    type Request = KeyBinding;
    type Answer = BindOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::IDEMPOTENCY_BIND
    }

    fn scope<'a>(&self, _: &KeyBuilder, entity: &'a Partition) -> KeyScope<'a> {
        KeyScope::partition(*entity)
    }

    fn write_args(
        &self,
        _: &Partition,
        requests: &[KeyBinding],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        for KeyBinding { keyed, resource } in requests {
            args.bytes(keyed.user.as_bytes())
                .text(&keyed.key)
                .bytes(&keyed.fingerprint)
                .bytes(resource);
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        _: &[KeyBinding],
        reply: ReplyReader,
    ) -> Result<Vec<BindOutcome>, Error> {
        reply.rest().map(bind_outcome).collect()
    }
}

fn bind_outcome(reply: ScriptReply) -> Result<BindOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        IdempotencyBindCode::Bound => BindOutcome::Bound,
        IdempotencyBindCode::Known => BindOutcome::AlreadyBound(sixteen(words.word()?)?),
        IdempotencyBindCode::Reused => BindOutcome::OtherRequest,
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
    resource: [u8; 16],
) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.bytes(keyed.user.as_bytes()).text(&keyed.key).bytes(&resource);
    let place = KeyScope::partition(redis.keys().partition(keyed.user.slot()));
    redis.call(&scripts::IDEMPOTENCY_RELEASE, place, args).await.map(drop)
}
