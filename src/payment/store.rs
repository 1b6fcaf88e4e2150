//! Calls of the scripts in `lua/payment/` for payments, one function or batch for each.

use std::time::Duration;

use super::record::Payment;
use crate::idempotency::KeyedRequest;
use crate::ids::{CouponId, IssueId, PaymentId, QueueId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::codes::{
    PaymentBeginCode, PaymentConfirmCode, PaymentFinishVoidCode, PaymentVoidCode,
};
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, PurgePage, RedisClient, ReplyReader,
    ScriptArgs, ScriptReply, millis, scripts,
};
use crate::seats::Reservation;

pub(super) struct BeginRequest {
    pub(super) payment: PaymentId,
    pub(super) reservation: ReservationId,
    pub(super) user: UserId,
    pub(super) issue: Option<IssueId>,
    pub(super) coupon: Option<CouponId>,
    pub(super) keyed: KeyedRequest,
    /// The part that the wallet pays of an external payment.
    pub(super) wallet_amount: Option<Money>,
}

#[derive(Debug)]
pub(super) enum BeginOutcome {
    /// The attempt is pending. It began now or with an earlier request.
    Pending(Payment, Reservation),
    /// The payment has ended or is being voided.
    Finished(Payment, Reservation),
    HoldExpired,
    NotPayable,
    NotFound,
    WrongQueue,
    /// The wallet part leaves nothing for the provider.
    NothingDue,
}

/// `payment/begin`.
pub(super) struct BeginBatch {
    /// Milliseconds until the payment is overdue.
    pub(super) due_ms: i64,
}

impl BatchScript for BeginBatch {
    type Entity = QueueId;
    type Request = BeginRequest;
    type Answer = BeginOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::PAYMENT_BEGIN
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a QueueId) -> KeyScope<'a> {
        KeyScope::queue(keys, entity)
    }

    fn write_args(
        &self,
        entity: &QueueId,
        requests: &[BeginRequest],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        args.text(entity.as_str()).int(self.due_ms);
        for request in requests {
            args.bytes(request.payment.as_bytes()).bytes(request.reservation.as_bytes());
            args.bytes(request.user.as_bytes());
            args.bytes(request.issue.as_ref().map_or(&[], |issue| issue.as_bytes()));
            args.text(request.coupon.as_ref().map_or("", CouponId::as_str));
            args.text(&request.keyed.key).bytes(&request.keyed.fingerprint);
            args.optional_int(request.wallet_amount.map(Money::get));
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &QueueId,
        _: &[BeginRequest],
        mut reply: ReplyReader,
    ) -> Result<Vec<BeginOutcome>, Error> {
        let _now = reply.int()?;
        reply.rest().map(begin_outcome).collect()
    }
}

fn begin_outcome(reply: ScriptReply) -> Result<BeginOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        PaymentBeginCode::Begun | PaymentBeginCode::Joined => {
            BeginOutcome::Pending(words.record()?, words.record()?)
        }
        PaymentBeginCode::Settled => BeginOutcome::Finished(words.record()?, words.record()?),
        PaymentBeginCode::Lapsed => BeginOutcome::HoldExpired,
        PaymentBeginCode::NotPayable => BeginOutcome::NotPayable,
        PaymentBeginCode::NotFound => BeginOutcome::NotFound,
        PaymentBeginCode::WrongQueue => BeginOutcome::WrongQueue,
        PaymentBeginCode::NothingDue => BeginOutcome::NothingDue,
    })
}

pub(super) struct ConfirmRequest {
    pub(super) payment: PaymentId,
    pub(super) attempt: u32,
    pub(super) balance_after: Money,
    pub(super) discount: Money,
}

/// What all confirmations of a batch share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ConfirmScope {
    pub(super) queue: QueueId,
    pub(super) schedule: ScheduleId,
}

/// `payment/confirm`. The answer is the payment and its reservation after the call, `None` if Redis
/// does not have it.
pub(super) struct ConfirmBatch;

impl BatchScript for ConfirmBatch {
    type Entity = ConfirmScope;
    type Request = ConfirmRequest;
    type Answer = Option<(Payment, Reservation)>;

    fn script(&self) -> &'static LuaScript {
        &scripts::PAYMENT_CONFIRM
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a ConfirmScope) -> KeyScope<'a> {
        KeyScope::schedule(keys, &entity.queue, &entity.schedule)
    }

    fn write_args(
        &self,
        _: &ConfirmScope,
        requests: &[ConfirmRequest],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        for request in requests {
            args.bytes(request.payment.as_bytes()).int(request.attempt.into());
            args.int(request.balance_after.get()).int(request.discount.get());
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &ConfirmScope,
        _: &[ConfirmRequest],
        reply: ReplyReader,
    ) -> Result<Vec<Option<(Payment, Reservation)>>, Error> {
        reply.rest().map(payment_after_confirm).collect()
    }
}

fn payment_after_confirm(reply: ScriptReply) -> Result<Option<(Payment, Reservation)>, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        PaymentConfirmCode::Confirmed | PaymentConfirmCode::Refused => {
            Some((words.record()?, words.record()?))
        }
        PaymentConfirmCode::NotFound => None,
    })
}

/// `payment/void`. Returns the payment after the call, `None` if Redis does not have it.
pub(super) async fn void(
    redis: &RedisClient,
    payment: &Payment,
    reason: &str,
) -> Result<Option<Payment>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into()).text(reason);
    args.int(payment.discount.get());
    let scope = KeyScope::queue(redis.keys(), &payment.queue);
    let mut replies = redis.call(&scripts::PAYMENT_VOID, scope, args).await?.words()?;
    let mut words = replies.word()?.words()?;
    match words.code()? {
        PaymentVoidCode::Voiding | PaymentVoidCode::Past => words.record().map(Some),
        PaymentVoidCode::NotFound => Ok(None),
    }
}

/// `payment/finish_void`. Returns the payment after the call, `None` if Redis does not have it.
pub(super) async fn finish_void(
    redis: &RedisClient,
    payment: &Payment,
) -> Result<Option<Payment>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into());
    let scope = KeyScope::queue(redis.keys(), &payment.queue);
    let mut replies = redis.call(&scripts::PAYMENT_FINISH_VOID, scope, args).await?.words()?;
    let mut words = replies.word()?.words()?;
    match words.code()? {
        PaymentFinishVoidCode::Ended | PaymentFinishVoidCode::AnotherAttempt => {
            words.record().map(Some)
        }
        PaymentFinishVoidCode::NotFound => Ok(None),
    }
}

/// `payment/finish_redemption`. Records that the coupon of a confirmed payment is redeemed, so the
/// payment is not overdue any more.
pub(super) async fn finish_redemption(redis: &RedisClient, payment: &Payment) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes());
    redis
        .call(
            &scripts::PAYMENT_FINISH_REDEMPTION,
            KeyScope::queue(redis.keys(), &payment.queue),
            args,
        )
        .await
        .map(drop)
}

/// `payment/overdue`. Returns the age of the oldest payment in progress in milliseconds, and at
/// limit `limit` overdue payments. No other call returns these for `lease_ms`.
pub(super) async fn overdue(
    redis: &RedisClient,
    queue: &QueueId,
    limit: u32,
    lease_ms: i64,
) -> Result<(u64, Vec<Payment>), Error> {
    let mut args = ScriptArgs::new();
    args.int(limit.into()).int(lease_ms);
    let mut words = redis
        .call(&scripts::PAYMENT_OVERDUE, KeyScope::queue(redis.keys(), queue), args)
        .await?
        .words()?;
    let oldest_ms = words.count()?;
    let records: Result<Vec<Option<Payment>>, Error> =
        words.rest().map(ScriptReply::record).collect();
    Ok((oldest_ms, records?.into_iter().flatten().collect()))
}

/// `payment/prune`. One page from a cursor. The first cursor is "0".
pub(super) async fn prune(
    redis: &RedisClient,
    partition: Partition,
    cursor: &str,
    checkpoint: u64,
    keep: Duration,
) -> Result<PurgePage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor).text(&checkpoint.to_string()).int(millis(keep));
    PurgePage::read(
        redis.call(&scripts::PAYMENT_PRUNE, KeyScope::partition(partition), args).await?,
    )
}

/// `payment/read`. The answer is the payment with its reservation, if Redis has them.
pub(super) struct PaymentReadBatch;

impl BatchScript for PaymentReadBatch {
    type Entity = Partition;
    type Request = PaymentId;
    type Answer = Option<(Payment, Option<Reservation>)>;

    fn script(&self) -> &'static LuaScript {
        &scripts::PAYMENT_READ
    }

    fn scope<'a>(&self, _: &KeyBuilder, entity: &'a Partition) -> KeyScope<'a> {
        KeyScope::partition(*entity)
    }

    fn write_args(
        &self,
        _: &Partition,
        requests: &[PaymentId],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        args.each(requests.iter().map(|id| id.as_bytes()));
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        _: &[PaymentId],
        mut reply: ReplyReader,
    ) -> Result<Vec<Option<(Payment, Option<Reservation>)>>, Error> {
        let _now = reply.int()?;
        reply.rest().map(payment_with_reservation).collect()
    }
}

fn payment_with_reservation(
    reply: ScriptReply,
) -> Result<Option<(Payment, Option<Reservation>)>, Error> {
    let mut words = reply.words()?;
    let Some(payment) = words.word()?.record()? else { return Ok(None) };
    Ok(Some((payment, words.word()?.record()?)))
}
