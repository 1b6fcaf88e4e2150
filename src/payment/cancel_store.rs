//! Calls of the scripts in `lua/payment/` for cancellations, one function for each.

use super::record::Payment;
use crate::idempotency::KeyedRequest;
use crate::ids::CouponId;
use crate::redis::codes::{PaymentBeginCancelCode, PaymentFinishCancelCode};
use crate::redis::{Error, KeyScope, RedisClient, ReplyReader, ScriptArgs, scripts};
use crate::seats::Reservation;

/// The sweep finishes a cancellation that takes longer. Its steps take a fraction of it.
const CANCELLATION_TIMEOUT_MS: i64 = 5_000;

/// The first field is Redis' clock, in milliseconds since 1970.
#[derive(Debug)]
pub(super) enum BeginCancelOutcome {
    /// The cancellation began now or with an earlier request.
    Pending(i64, Payment, Reservation),
    /// The reservation was cancelled before with the same key.
    Cancelled(i64, Option<Payment>, Reservation),
    NotConfirmed,
    CancellationClosed,
    /// The reservation was pruned from Redis.
    NotInRedis,
}

/// `payment/begin_cancel`. Pass the payment if it was pruned from Redis.
pub(super) async fn begin_cancel(
    redis: &RedisClient,
    reservation: &Reservation,
    closes_at: i64,
    keyed: &KeyedRequest,
    payment: Option<&Payment>,
) -> Result<BeginCancelOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.int(CANCELLATION_TIMEOUT_MS)
        .bytes(reservation.id.as_bytes())
        .bytes(reservation.user.as_bytes())
        .int(closes_at)
        .text(&keyed.key)
        .bytes(&keyed.fingerprint);
    if let Some(payment) = payment {
        write_stored(&mut args, reservation, payment)?;
    }
    let mut words = call(redis, &scripts::PAYMENT_BEGIN_CANCEL, reservation, args).await?;
    Ok(match words.code()? {
        PaymentBeginCancelCode::Begun => {
            let (payment, reservation) = (words.record()?, words.record()?);
            BeginCancelOutcome::Pending(words.int()?, payment, reservation)
        }
        PaymentBeginCancelCode::Cancelled => {
            let (payment, reservation) = (words.word()?.record()?, words.record()?);
            BeginCancelOutcome::Cancelled(words.int()?, payment, reservation)
        }
        PaymentBeginCancelCode::NotBought | PaymentBeginCancelCode::UnderAnotherKey => {
            BeginCancelOutcome::NotConfirmed
        }
        PaymentBeginCancelCode::TooLate => BeginCancelOutcome::CancellationClosed,
        PaymentBeginCancelCode::NotKept => BeginCancelOutcome::NotInRedis,
    })
}

fn write_stored(
    args: &mut ScriptArgs,
    reservation: &Reservation,
    payment: &Payment,
) -> Result<(), Error> {
    let detail = serde_json::to_string(&reservation.seats)
        .map_err(|error| Error::Protocol(error.to_string()))?;
    args.text(reservation.queue.as_str()).text(reservation.concert.as_str());
    args.text(reservation.schedule.as_str()).text(&detail).int(reservation.amount.get());
    args.int(reservation.held_until).int(reservation.created_at);
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into()).int(payment.amount.get());
    args.int(payment.discount.get())
        .optional_int(payment.balance_after.map(|balance| balance.get()));
    args.int(payment.created_at).text(payment.coupon.as_ref().map_or("", CouponId::as_str));
    args.bytes(payment.issue.as_ref().map_or(&[], |issue| issue.as_bytes()));
    args.int(i64::try_from(reservation.seats.len()).unwrap_or(i64::MAX));
    for seat in &reservation.seats {
        args.int(seat.number.into());
    }
    Ok(())
}

/// `payment/finish_cancel`. Returns Redis' clock, the payment and the reservation after the call.
pub(super) async fn finish_cancel(
    redis: &RedisClient,
    payment: &Payment,
    reservation: &Reservation,
) -> Result<Option<(i64, Payment, Reservation)>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes());
    let mut words = call(redis, &scripts::PAYMENT_FINISH_CANCEL, reservation, args).await?;
    match words.code()? {
        PaymentFinishCancelCode::Cancelled | PaymentFinishCancelCode::NotCancelling => {
            let (payment, reservation) = (words.record()?, words.record()?);
            Ok(Some((words.int()?, payment, reservation)))
        }
        PaymentFinishCancelCode::NotFound => Ok(None),
    }
}

async fn call(
    redis: &RedisClient,
    script: &'static crate::redis::LuaScript,
    reservation: &Reservation,
    args: ScriptArgs,
) -> Result<ReplyReader, Error> {
    let scope = KeyScope::schedule(redis.keys(), &reservation.queue, &reservation.schedule);
    redis.call(script, scope, args).await?.words()
}
