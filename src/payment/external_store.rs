//! Calls of the scripts in `lua/payment/` for external payments, one function for each.

use super::record::Payment;
use super::rules::ProviderProof;
use crate::ids::{PaymentId, ReferenceKey};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::codes::{
    PaymentAwaitExternalCode, PaymentClaimReferenceCode, PaymentConfirmExternalCode,
    PaymentCountPendingCode, PaymentReportRefundCode,
};
use crate::redis::{Error, KeyScope, RedisClient, ReplyReader, ScriptArgs, ScriptReply, scripts};
use crate::seats::Reservation;

/// External payments of one user that may wait at once.
const MAX_PENDING_PAYMENTS: i64 = 3;
/// The length of an attempt in an entry of `pending`, in digits.
const ATTEMPT_DIGITS: usize = 10;

/// `payment/await_external`. Returns the payment and its reservation after the call, `None` if
/// Redis does not have it.
pub(super) async fn await_external(
    redis: &RedisClient,
    payment: &Payment,
    reservation: &Reservation,
    balance_after: Money,
    wait_ms: i64,
) -> Result<Option<(Payment, Reservation)>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into());
    args.optional_int(payment.has_debit().then_some(balance_after.get()));
    args.int(payment.discount.get()).int(wait_ms);
    let scope = KeyScope::schedule(redis.keys(), &reservation.queue, &reservation.schedule);
    let mut words = redis.call(&scripts::PAYMENT_AWAIT_EXTERNAL, scope, args).await?.words()?;
    match words.code()? {
        PaymentAwaitExternalCode::Waiting | PaymentAwaitExternalCode::Refused => both(words),
        PaymentAwaitExternalCode::NotFound => Ok(None),
    }
}

#[derive(Debug)]
pub(super) enum ExternalConfirmOutcome {
    Confirmed(Box<(Payment, Reservation)>),
    /// It is pending, but past its time.
    TooLate(Payment),
    /// The payment as it reads.
    Refused(Payment),
    NotFound,
}

/// `payment/confirm_external`.
pub(super) async fn confirm_external(
    redis: &RedisClient,
    payment: &Payment,
    reservation: &Reservation,
    balance_after: Money,
    proof: &ProviderProof,
) -> Result<ExternalConfirmOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.id.as_bytes()).int(payment.attempt.into());
    args.optional_int(payment.has_debit().then_some(balance_after.get()));
    args.text(&proof.provider).text(&proof.reference).int(proof.amount.get());
    let scope = KeyScope::schedule(redis.keys(), &reservation.queue, &reservation.schedule);
    let mut words = redis.call(&scripts::PAYMENT_CONFIRM_EXTERNAL, scope, args).await?.words()?;
    Ok(match words.code()? {
        PaymentConfirmExternalCode::Confirmed => {
            ExternalConfirmOutcome::Confirmed(Box::new((words.record()?, words.record()?)))
        }
        PaymentConfirmExternalCode::TooLate => ExternalConfirmOutcome::TooLate(words.record()?),
        PaymentConfirmExternalCode::Refused => ExternalConfirmOutcome::Refused(words.record()?),
        PaymentConfirmExternalCode::NotFound => ExternalConfirmOutcome::NotFound,
    })
}

fn both(mut words: ReplyReader) -> Result<Option<(Payment, Reservation)>, Error> {
    Ok(Some((words.record()?, words.record()?)))
}

/// An attempt of a payment, as `references` and `pending` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttemptName {
    pub(super) payment: PaymentId,
    pub(super) attempt: u32,
}

impl AttemptName {
    pub(super) fn of(payment: &Payment) -> Self {
        Self { payment: payment.id, attempt: payment.attempt }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let parse = || {
            let (id, attempt) = bytes.split_at_checked(16)?;
            let attempt = std::str::from_utf8(attempt).ok()?.parse().ok()?;
            Some(Self { payment: PaymentId::from_slice(id)?, attempt })
        };
        parse().ok_or_else(|| Error::Protocol("expected an attempt of a payment".into()))
    }

    /// As in `references`.
    fn claim(self) -> Vec<u8> {
        [self.payment.as_bytes().as_slice(), self.attempt.to_string().as_bytes()].concat()
    }

    /// As in `pending`.
    fn entry(self) -> Vec<u8> {
        let attempt = format!("{:0ATTEMPT_DIGITS$}", self.attempt);
        [self.payment.as_bytes().as_slice(), attempt.as_bytes()].concat()
    }
}

/// `payment/claim_reference`. Replaces the claim `stale`. Returns the claim that is in the way.
pub(super) async fn claim_reference(
    redis: &RedisClient,
    key: ReferenceKey,
    own: AttemptName,
    stale: Option<AttemptName>,
) -> Result<Option<AttemptName>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(key.as_bytes()).bytes(own.payment.as_bytes()).int(own.attempt.into());
    args.bytes(&stale.map_or_else(Vec::new, AttemptName::claim));
    let scope = KeyScope::partition(redis.keys().partition(key.slot()));
    let mut words = redis.call(&scripts::PAYMENT_CLAIM_REFERENCE, scope, args).await?.words()?;
    match words.code()? {
        PaymentClaimReferenceCode::Claimed | PaymentClaimReferenceCode::Known => Ok(None),
        PaymentClaimReferenceCode::Taken => AttemptName::parse(&words.word()?.bytes()?).map(Some),
    }
}

/// `payment/count_pending`, without the entries `ended`. Returns all entries when there are too
/// many.
pub(super) async fn count_pending(
    redis: &RedisClient,
    payment: &Payment,
    ended: &[AttemptName],
) -> Result<Option<Vec<AttemptName>>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.user.as_bytes()).bytes(payment.id.as_bytes());
    args.int(payment.attempt.into()).int(MAX_PENDING_PAYMENTS);
    for name in ended {
        args.bytes(&name.entry());
    }
    let scope = KeyScope::partition(redis.keys().partition(payment.user.slot()));
    let mut words = redis.call(&scripts::PAYMENT_COUNT_PENDING, scope, args).await?.words()?;
    match words.code()? {
        PaymentCountPendingCode::Counted => Ok(None),
        PaymentCountPendingCode::Full => {
            let parse = |word: ScriptReply| AttemptName::parse(&word.bytes()?);
            words.rest().map(parse).collect::<Result<_, _>>().map(Some)
        }
    }
}

#[derive(Debug)]
pub(super) enum RefundReportOutcome {
    Reported(Payment),
    /// More than is due, or another amount than before.
    Mismatch(Payment),
    NotFound,
}

/// `payment/report_refund`.
pub(super) async fn report_refund(
    redis: &RedisClient,
    payment: PaymentId,
    reference: &str,
    amount: Money,
) -> Result<RefundReportOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.as_bytes()).text(reference).int(amount.get());
    let partition: Partition = redis.keys().partition(payment.slot());
    let scope = KeyScope::partition(partition);
    let mut words = redis.call(&scripts::PAYMENT_REPORT_REFUND, scope, args).await?.words()?;
    Ok(match words.code()? {
        PaymentReportRefundCode::Reported => RefundReportOutcome::Reported(words.record()?),
        PaymentReportRefundCode::Mismatch => RefundReportOutcome::Mismatch(words.record()?),
        PaymentReportRefundCode::NotFound => RefundReportOutcome::NotFound,
    })
}
