//! The scripts of idempotency keys.

use super::Keyed;
use crate::partition::Partition;
use crate::redis::{Args, Batch, Error, Place, Redis, Reply, Script, scripts};

/// A key and the thing that its request makes.
pub(super) struct Binding {
    pub(super) keyed: Keyed,
    pub(super) thing: [u8; 16],
}

/// What a key is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// To the thing of this request, now.
    Now,
    /// To another thing, by the same request before.
    Before([u8; 16]),
    /// To another request.
    Elsewhere,
}

/// `idempotency/bind`.
pub(super) struct Bind(pub(super) Redis);

impl Batch for Bind {
    type Entity = Partition;
    type Request = Binding;
    type Answer = Bound;

    fn script(&self) -> &'static Script {
        &scripts::IDEMPOTENCY_BIND
    }

    async fn call(&self, partition: &Partition, bindings: &[Binding]) -> Result<Vec<Bound>, Error> {
        let mut args = Args::new();
        for Binding { keyed, thing } in bindings {
            args.bytes(keyed.user.as_bytes()).text(&keyed.key).bytes(&keyed.fingerprint).bytes(thing);
        }
        let words = self.0.call(self.script(), Place::partition(*partition), args).await?.words()?;
        words.rest().map(bound).collect()
    }
}

fn bound(reply: Reply) -> Result<Bound, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 => Bound::Now,
        2 => Bound::Before(sixteen(words.word()?)?),
        _ => Bound::Elsewhere,
    })
}

fn sixteen(word: Reply) -> Result<[u8; 16], Error> {
    let bytes = word.bytes()?;
    bytes.as_ref().try_into().map_err(|_| Error::Protocol("wanted sixteen bytes".into()))
}

/// `idempotency/release`.
pub(super) async fn release(redis: &Redis, keyed: &Keyed, thing: [u8; 16]) -> Result<(), Error> {
    let mut args = Args::new();
    args.bytes(keyed.user.as_bytes()).text(&keyed.key).bytes(&thing);
    let place = Place::partition(redis.keys().partition(keyed.user.slot()));
    redis.call(&scripts::IDEMPOTENCY_RELEASE, place, args).await.map(drop)
}
