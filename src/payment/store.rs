//! The scripts of the payment, one batch or function each.

use std::time::Duration;

use super::record::Payment;
use crate::idempotency::Keyed;
use crate::ids::{CouponId, IssueId, PaymentId, QueueId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::{Args, Batch, Error, Place, Redis, Reply, Retired, Script, Words, millis, scripts};
use crate::seats::Reservation;

/// A payment that is to begin.
pub(super) struct Beginning {
    pub(super) payment: PaymentId,
    pub(super) reservation: ReservationId,
    pub(super) user: UserId,
    pub(super) issue: Option<IssueId>,
    pub(super) coupon: Option<CouponId>,
    pub(super) keyed: Keyed,
}

/// What came of beginning.
#[derive(Debug)]
pub(super) enum Begun {
    /// The attempt is pending: begun now, or by a twin that may be joined.
    Pending(Payment, Reservation),
    /// Settled before, or being turned back.
    Past(Payment, Reservation),
    HoldExpired,
    NotPayable,
    NotFound,
    WrongQueue,
}

/// `payment/begin`.
pub(super) struct Begin {
    pub(super) redis: Redis,
    /// Milliseconds until the sweep looks at the payment.
    pub(super) due_ms: i64,
}

impl Batch for Begin {
    type Entity = QueueId;
    type Request = Beginning;
    type Answer = Begun;

    fn script(&self) -> &'static Script {
        &scripts::PAYMENT_BEGIN
    }

    async fn call(&self, queue: &QueueId, beginnings: &[Beginning]) -> Result<Vec<Begun>, Error> {
        let mut args = Args::new();
        args.text(queue.as_str()).int(self.due_ms);
        for beginning in beginnings {
            args.bytes(beginning.payment.as_bytes()).bytes(beginning.reservation.as_bytes());
            args.bytes(beginning.user.as_bytes());
            args.bytes(beginning.issue.as_ref().map_or(&[], |issue| issue.as_bytes()));
            args.text(beginning.coupon.as_ref().map_or("", CouponId::as_str));
            args.text(&beginning.keyed.key).bytes(&beginning.keyed.fingerprint);
        }
        let place = Place::queue(self.redis.keys(), queue);
        let mut words = self.redis.call(self.script(), place, args).await?.words()?;
        words.int()?;
        words.rest().map(begun).collect()
    }
}

fn begun(reply: Reply) -> Result<Begun, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 | 2 => Begun::Pending(words.record()?, words.record()?),
        3 => Begun::Past(words.record()?, words.record()?),
        4 => Begun::HoldExpired,
        5 => Begun::NotPayable,
        6 => Begun::NotFound,
        _ => Begun::WrongQueue,
    })
}

/// One attempt that is to be confirmed.
pub(super) struct Confirmation {
    pub(super) payment: PaymentId,
    pub(super) attempt: u32,
    pub(super) balance_after: Money,
    pub(super) discount: Money,
}

/// A schedule and its queue: what confirmations of a batch have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Hall {
    pub(super) queue: QueueId,
    pub(super) schedule: ScheduleId,
}

/// `payment/confirm`. Answers the payment as it stands after the call, with its reservation.
pub(super) struct Confirm(pub(super) Redis);

impl Batch for Confirm {
    type Entity = Hall;
    type Request = Confirmation;
    type Answer = Option<(Payment, Reservation)>;

    fn script(&self) -> &'static Script {
        &scripts::PAYMENT_CONFIRM
    }

    async fn call(&self, hall: &Hall, confirmations: &[Confirmation]) -> Result<Vec<Self::Answer>, Error> {
        let mut args = Args::new();
        for confirmation in confirmations {
            args.bytes(confirmation.payment.as_bytes()).int(confirmation.attempt.into());
            args.int(confirmation.balance_after.get()).int(confirmation.discount.get());
        }
        let place = Place::schedule(self.0.keys(), &hall.queue, &hall.schedule);
        let words = self.0.call(self.script(), place, args).await?.words()?;
        words.rest().map(confirmed).collect()
    }
}

fn confirmed(reply: Reply) -> Result<Option<(Payment, Reservation)>, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 | 2 => Some((words.record()?, words.record()?)),
        _ => None,
    })
}

/// `payment/void`. Answers the payment as it stands after the call.
pub(super) async fn void(redis: &Redis, payment: &Payment, reason: &str) -> Result<Option<Payment>, Error> {
    let mut args = Args::new();
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into()).text(reason);
    after(redis, &scripts::PAYMENT_VOID, payment, args).await
}

/// `payment/voided`. Answers the payment as it stands after the call.
pub(super) async fn voided(redis: &Redis, payment: &Payment) -> Result<Option<Payment>, Error> {
    let mut args = Args::new();
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into());
    after(redis, &scripts::PAYMENT_VOIDED, payment, args).await
}

async fn after(
    redis: &Redis,
    script: &'static Script,
    payment: &Payment,
    args: Args,
) -> Result<Option<Payment>, Error> {
    let words = redis.call(script, Place::queue(redis.keys(), &payment.queue), args).await?.words()?;
    first(words)?.map(|mut words| words.record()).transpose()
}

/// The words of the one answer, unless it says that there is no such payment.
fn first(mut words: Words) -> Result<Option<Words>, Error> {
    let mut words = words.word()?.words()?;
    Ok(if words.int()? == 3 { None } else { Some(words) })
}

/// `payment/settled`. The coupon of a confirmed payment is marked as used; the sweep needn't look at it any more.
pub(super) async fn settled(redis: &Redis, payment: &Payment) -> Result<(), Error> {
    let mut args = Args::new();
    args.bytes(payment.id.as_bytes());
    redis.call(&scripts::PAYMENT_SETTLED, Place::queue(redis.keys(), &payment.queue), args).await.map(drop)
}

/// `payment/overdue`. For how many milliseconds the oldest payment has been without an end, and the payments past their due time; nobody
/// else is given those for `lease_ms`.
pub(super) async fn overdue(
    redis: &Redis,
    queue: &QueueId,
    most: u32,
    lease_ms: i64,
) -> Result<(u64, Vec<Payment>), Error> {
    let mut args = Args::new();
    args.int(most.into()).int(lease_ms);
    let mut words =
        redis.call(&scripts::PAYMENT_OVERDUE, Place::queue(redis.keys(), queue), args).await?.words()?;
    let oldest_ms = words.count()?;
    let records: Result<Vec<Option<Payment>>, Error> = words.rest().map(Reply::record).collect();
    Ok((oldest_ms, records?.into_iter().flatten().collect()))
}

/// `payment/retire`. Goes on from a cursor ("0" begins).
pub(super) async fn retire(
    redis: &Redis,
    partition: Partition,
    cursor: &str,
    checkpoint: u64,
    keep: Duration,
) -> Result<Retired, Error> {
    let mut args = Args::new();
    args.text(cursor).text(&checkpoint.to_string()).int(millis(keep));
    Retired::read(redis.call(&scripts::PAYMENT_RETIRE, Place::partition(partition), args).await?)
}

/// `payment/read`. Answers the payment with its reservation, if Redis has them.
pub(super) struct Read(pub(super) Redis);

impl Batch for Read {
    type Entity = Partition;
    type Request = PaymentId;
    type Answer = Option<(Payment, Option<Reservation>)>;

    fn script(&self) -> &'static Script {
        &scripts::PAYMENT_READ
    }

    async fn call(&self, partition: &Partition, ids: &[PaymentId]) -> Result<Vec<Self::Answer>, Error> {
        let mut args = Args::new();
        args.each(ids.iter().map(|id| id.as_bytes()));
        let mut words = self.0.call(self.script(), Place::partition(*partition), args).await?.words()?;
        words.int()?;
        words.rest().map(pair).collect()
    }
}

fn pair(reply: Reply) -> Result<Option<(Payment, Option<Reservation>)>, Error> {
    let mut words = reply.words()?;
    let Some(payment) = words.word()?.record()? else { return Ok(None) };
    Ok(Some((payment, words.word()?.record()?)))
}
