//! The scripts of the payment, one batch or function each.

use std::time::Duration;

use super::record::Payment;
use crate::idempotency::KeyedRequest;
use crate::ids::{CouponId, IssueId, PaymentId, QueueId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::{
    BatchOperation, EndedPage, Error, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs,
    ScriptReply, millis, scripts,
};
use crate::seats::Reservation;

/// A payment that is to begin.
pub(super) struct BeginRequest {
    pub(super) payment: PaymentId,
    pub(super) reservation: ReservationId,
    pub(super) user: UserId,
    pub(super) issue: Option<IssueId>,
    pub(super) coupon: Option<CouponId>,
    pub(super) keyed: KeyedRequest,
}

/// What came of beginning.
#[derive(Debug)]
pub(super) enum BeginOutcome {
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
pub(super) struct BeginBatch {
    pub(super) redis: RedisClient,
    /// Milliseconds until the sweep looks at the payment.
    pub(super) due_ms: i64,
}

impl BatchOperation for BeginBatch {
    type Entity = QueueId;
    type Request = BeginRequest;
    type Answer = BeginOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::PAYMENT_BEGIN
    }

    async fn call(
        &self,
        queue: &QueueId,
        beginnings: &[BeginRequest],
    ) -> Result<Vec<BeginOutcome>, Error> {
        let mut args = ScriptArgs::new();
        args.text(queue.as_str()).int(self.due_ms);
        for beginning in beginnings {
            args.bytes(beginning.payment.as_bytes()).bytes(beginning.reservation.as_bytes());
            args.bytes(beginning.user.as_bytes());
            args.bytes(beginning.issue.as_ref().map_or(&[], |issue| issue.as_bytes()));
            args.text(beginning.coupon.as_ref().map_or("", CouponId::as_str));
            args.text(&beginning.keyed.key).bytes(&beginning.keyed.fingerprint);
        }
        let place = KeyScope::queue(self.redis.keys(), queue);
        let mut words = self.redis.call(self.script(), place, args).await?.words()?;
        words.int()?;
        words.rest().map(begun).collect()
    }
}

fn begun(reply: ScriptReply) -> Result<BeginOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 | 2 => BeginOutcome::Pending(words.record()?, words.record()?),
        3 => BeginOutcome::Past(words.record()?, words.record()?),
        4 => BeginOutcome::HoldExpired,
        5 => BeginOutcome::NotPayable,
        6 => BeginOutcome::NotFound,
        _ => BeginOutcome::WrongQueue,
    })
}

/// One attempt that is to be confirmed.
pub(super) struct ConfirmRequest {
    pub(super) payment: PaymentId,
    pub(super) attempt: u32,
    pub(super) balance_after: Money,
    pub(super) discount: Money,
}

/// A schedule and its queue: what confirmations of a batch have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ConfirmScope {
    pub(super) queue: QueueId,
    pub(super) schedule: ScheduleId,
}

/// `payment/confirm`. Answers the payment as it stands after the call, with its reservation.
pub(super) struct ConfirmBatch(pub(super) RedisClient);

impl BatchOperation for ConfirmBatch {
    type Entity = ConfirmScope;
    type Request = ConfirmRequest;
    type Answer = Option<(Payment, Reservation)>;

    fn script(&self) -> &'static LuaScript {
        &scripts::PAYMENT_CONFIRM
    }

    async fn call(
        &self,
        hall: &ConfirmScope,
        confirmations: &[ConfirmRequest],
    ) -> Result<Vec<Self::Answer>, Error> {
        let mut args = ScriptArgs::new();
        for confirmation in confirmations {
            args.bytes(confirmation.payment.as_bytes()).int(confirmation.attempt.into());
            args.int(confirmation.balance_after.get()).int(confirmation.discount.get());
        }
        let place = KeyScope::schedule(self.0.keys(), &hall.queue, &hall.schedule);
        let words = self.0.call(self.script(), place, args).await?.words()?;
        words.rest().map(confirmed).collect()
    }
}

fn confirmed(reply: ScriptReply) -> Result<Option<(Payment, Reservation)>, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 | 2 => Some((words.record()?, words.record()?)),
        _ => None,
    })
}

/// `payment/void`. Answers the payment as it stands after the call.
pub(super) async fn void(
    redis: &RedisClient,
    payment: &Payment,
    reason: &str,
) -> Result<Option<Payment>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into()).text(reason);
    after(redis, &scripts::PAYMENT_VOID, payment, args).await
}

/// `payment/voided`. Answers the payment as it stands after the call.
pub(super) async fn voided(
    redis: &RedisClient,
    payment: &Payment,
) -> Result<Option<Payment>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into());
    after(redis, &scripts::PAYMENT_VOIDED, payment, args).await
}

async fn after(
    redis: &RedisClient,
    script: &'static LuaScript,
    payment: &Payment,
    args: ScriptArgs,
) -> Result<Option<Payment>, Error> {
    let words =
        redis.call(script, KeyScope::queue(redis.keys(), &payment.queue), args).await?.words()?;
    first(words)?.map(|mut words| words.record()).transpose()
}

/// The words of the one answer, unless it says that there is no such payment.
fn first(mut words: ReplyReader) -> Result<Option<ReplyReader>, Error> {
    let mut words = words.word()?.words()?;
    Ok(if words.int()? == 3 { None } else { Some(words) })
}

/// `payment/settled`. The coupon of a confirmed payment is marked as used; the sweep needn't look at it any more.
pub(super) async fn settled(redis: &RedisClient, payment: &Payment) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes());
    redis
        .call(&scripts::PAYMENT_SETTLED, KeyScope::queue(redis.keys(), &payment.queue), args)
        .await
        .map(drop)
}

/// `payment/overdue`. For how many milliseconds the oldest payment has been without an end, and the payments past their due time; nobody
/// else is given those for `lease_ms`.
pub(super) async fn overdue(
    redis: &RedisClient,
    queue: &QueueId,
    most: u32,
    lease_ms: i64,
) -> Result<(u64, Vec<Payment>), Error> {
    let mut args = ScriptArgs::new();
    args.int(most.into()).int(lease_ms);
    let mut words = redis
        .call(&scripts::PAYMENT_OVERDUE, KeyScope::queue(redis.keys(), queue), args)
        .await?
        .words()?;
    let oldest_ms = words.count()?;
    let records: Result<Vec<Option<Payment>>, Error> =
        words.rest().map(ScriptReply::record).collect();
    Ok((oldest_ms, records?.into_iter().flatten().collect()))
}

/// `payment/retire`. Goes on from a cursor ("0" begins).
pub(super) async fn retire(
    redis: &RedisClient,
    partition: Partition,
    cursor: &str,
    checkpoint: u64,
    keep: Duration,
) -> Result<EndedPage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor).text(&checkpoint.to_string()).int(millis(keep));
    EndedPage::read(
        redis.call(&scripts::PAYMENT_RETIRE, KeyScope::partition(partition), args).await?,
    )
}

/// `payment/read`. Answers the payment with its reservation, if Redis has them.
pub(super) struct PaymentReadBatch(pub(super) RedisClient);

impl BatchOperation for PaymentReadBatch {
    type Entity = Partition;
    type Request = PaymentId;
    type Answer = Option<(Payment, Option<Reservation>)>;

    fn script(&self) -> &'static LuaScript {
        &scripts::PAYMENT_READ
    }

    async fn call(
        &self,
        partition: &Partition,
        ids: &[PaymentId],
    ) -> Result<Vec<Self::Answer>, Error> {
        let mut args = ScriptArgs::new();
        args.each(ids.iter().map(|id| id.as_bytes()));
        let mut words =
            self.0.call(self.script(), KeyScope::partition(*partition), args).await?.words()?;
        words.int()?;
        words.rest().map(pair).collect()
    }
}

fn pair(reply: ScriptReply) -> Result<Option<(Payment, Option<Reservation>)>, Error> {
    let mut words = reply.words()?;
    let Some(payment) = words.word()?.record()? else { return Ok(None) };
    Ok(Some((payment, words.word()?.record()?)))
}
