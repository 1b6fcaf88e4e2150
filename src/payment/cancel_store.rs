//! Calls of the scripts in `lua/payment/` for cancellations, one function for each.

use super::record::{Payment, PendingCancellation};
use crate::idempotency::KeyedRequest;
use crate::ids::CouponId;
use crate::money::Money;
use crate::redis::codes::{PaymentBeginCancelCode, PaymentFinishCancelCode};
use crate::redis::{Error, KeyScope, RedisClient, ReplyReader, ScriptArgs, scripts};
use crate::seats::Reservation;

/// The sweep finishes a cancellation that takes longer. Its steps take a fraction of it.
const CANCELLATION_TIMEOUT_MS: i64 = 5_000;

/// What to cancel.
pub(super) struct CancelRequest<'a> {
    pub(super) reservation: &'a Reservation,
    pub(super) keyed: &'a KeyedRequest,
    /// Until when, in milliseconds since 1970.
    pub(super) closes_at: i64,
    /// Empty: all seats that are left.
    pub(super) seats: &'a [u32],
    /// What the seats give back, unless they are the last ones.
    pub(super) refund: Money,
}

/// The first field is Redis' clock, in milliseconds since 1970.
#[derive(Debug)]
pub(super) enum BeginCancelOutcome {
    /// The cancellation began now or with an earlier request with the same key.
    Pending(i64, Payment, Reservation),
    /// It was done before with the same key.
    Cancelled(i64, Option<Payment>, Reservation),
    /// Another cancellation must be finished first.
    InTheWay(Payment, Reservation),
    NotConfirmed,
    CancellationClosed,
    /// The reservation was pruned from Redis.
    NotInRedis,
}

/// `payment/begin_cancel`. Pass the payment if it was pruned from Redis.
pub(super) async fn begin_cancel(
    redis: &RedisClient,
    request: &CancelRequest<'_>,
    payment: Option<&Payment>,
) -> Result<BeginCancelOutcome, Error> {
    let CancelRequest { reservation, keyed, closes_at, seats, refund } = *request;
    let mut args = ScriptArgs::new();
    args.int(CANCELLATION_TIMEOUT_MS)
        .bytes(reservation.id.as_bytes())
        .bytes(reservation.user.as_bytes())
        .int(closes_at)
        .text(&keyed.key)
        .text(&hex(&keyed.fingerprint))
        .int(refund.get());
    write_numbers(&mut args, seats.iter().copied());
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
        PaymentBeginCancelCode::InTheWay => {
            BeginCancelOutcome::InTheWay(words.record()?, words.record()?)
        }
        PaymentBeginCancelCode::NotBought => BeginCancelOutcome::NotConfirmed,
        PaymentBeginCancelCode::TooLate => BeginCancelOutcome::CancellationClosed,
        PaymentBeginCancelCode::NotKept => BeginCancelOutcome::NotInRedis,
    })
}

fn hex(fingerprint: &[u8]) -> String {
    use std::fmt::Write;
    fingerprint.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn write_numbers(args: &mut ScriptArgs, numbers: impl ExactSizeIterator<Item = u32>) {
    args.int(i64::try_from(numbers.len()).unwrap_or(i64::MAX));
    for number in numbers {
        args.int(number.into());
    }
}

fn write_stored(
    args: &mut ScriptArgs,
    reservation: &Reservation,
    payment: &Payment,
) -> Result<(), Error> {
    let json = |error: serde_json::Error| Error::Protocol(error.to_string());
    let detail = serde_json::to_string(&reservation.seats).map_err(json)?;
    let cancellations = serde_json::to_string(&reservation.cancellations).map_err(json)?;
    args.text(reservation.queue.as_str()).text(reservation.concert.as_str());
    args.text(reservation.schedule.as_str()).text(&detail).int(reservation.amount.get());
    args.int(reservation.held_until).int(reservation.created_at);
    args.text(reservation.title.as_deref().unwrap_or("")).optional_int(reservation.starts_at);
    args.text(&cancellations);
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into()).int(payment.amount.get());
    args.int(payment.discount.get())
        .optional_int(payment.balance_after.map(|balance| balance.get()));
    args.int(payment.created_at).text(payment.coupon.as_ref().map_or("", CouponId::as_str));
    args.bytes(payment.issue.as_ref().map_or(&[], |issue| issue.as_bytes()));
    args.int(payment.refunded.get());
    let external = payment.external.as_ref().map(serde_json::to_string).transpose();
    args.text(external.map_err(json)?.as_deref().unwrap_or(""));
    let (left, _) = reservation.split_seats();
    write_numbers(args, left.iter().map(|seat| seat.number));
    Ok(())
}

/// `payment/finish_cancel`. Returns Redis' clock, the payment and the reservation after the call.
pub(super) async fn finish_cancel(
    redis: &RedisClient,
    payment: &Payment,
    cancellation: &PendingCancellation,
    reservation: &Reservation,
) -> Result<Option<(i64, Payment, Reservation)>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes()).int(cancellation.number.into());
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
