//! The scripts of a reconciliation, one function each. They run under the partition's epoch like
//! any other script.

use super::reconcile_sql::{MissingRefund, PaidReference, UnmatchedDebit, UnmatchedRefund};
use crate::ids::{CouponId, EntryId, IssueId, PaymentId, QueueId, ReferenceKey, UserId};
use crate::redis::codes::{
    PaymentClaimReferenceCode, RecoveryFreeRedemptionCode, RecoveryRepeatDebitCode,
    RecoveryResumeCancelCode, WalletRefundCancelledCode,
};
use crate::redis::{Error, KeyScope, RedisClient, ScriptArgs, scripts};

/// The state of a payment in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RedisPaymentState {
    attempt: u32,
    /// Empty when the payment does not exist.
    state: String,
}

impl RedisPaymentState {
    /// Whether the debit of an attempt is justified: the attempt is in progress or was paid. Also
    /// when it was cancelled since: the cancellation refunds it under its own operation, and a
    /// refund here would be the second one.
    pub(super) fn justifies_debit(&self, attempt: u32) -> bool {
        self.attempt == attempt && !["", "declined", "voided"].contains(&self.state.as_str())
    }

    /// Whether the payment is not in progress and has not paid anything.
    pub(super) fn is_over(&self) -> bool {
        ["", "declined", "voided", "refunded"].contains(&self.state.as_str())
    }
}

/// `recovery/payment_state`.
pub(super) async fn payment_state(
    redis: &RedisClient,
    payment: PaymentId,
) -> Result<RedisPaymentState, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(payment.as_bytes());
    let scope = KeyScope::partition(redis.keys().partition(payment.slot()));
    let mut words = redis.call(&scripts::RECOVERY_PAYMENT_STATE, scope, args).await?.words()?;
    let attempt = u32::try_from(words.int()?).unwrap_or(0);
    Ok(RedisPaymentState { attempt, state: words.text()? })
}

/// `payment/claim_reference`. Returns whether the claim was missing. A claim that a payment which
/// is over has left is replaced.
pub(super) async fn claim_reference(
    redis: &RedisClient,
    paid: &PaidReference,
) -> Result<bool, Error> {
    let key = ReferenceKey::of(&paid.provider, &paid.reference);
    let scope = KeyScope::partition(redis.keys().partition(key.slot()));
    let mut stale = Vec::new();
    loop {
        let mut args = ScriptArgs::new();
        args.bytes(key.as_bytes()).bytes(paid.id.as_bytes()).int(paid.attempt.into()).bytes(&stale);
        let reply = redis.call(&scripts::PAYMENT_CLAIM_REFERENCE, scope, args).await?;
        let mut words = reply.words()?;
        match words.code()? {
            PaymentClaimReferenceCode::Claimed => return Ok(true),
            PaymentClaimReferenceCode::Known => return Ok(false),
            PaymentClaimReferenceCode::Taken => {
                let claim = words.word()?.bytes()?;
                let holder = claim.get(..16).and_then(PaymentId::from_slice);
                let Some(holder) = holder.filter(|_| stale.is_empty()) else { return Ok(false) };
                if !payment_state(redis, holder).await?.is_over() {
                    return Ok(false);
                }
                stale = claim.to_vec();
            }
        }
    }
}

/// `wallet/refund`. Returns whether money was refunded.
pub(super) async fn refund(
    redis: &RedisClient,
    user: UserId,
    debit: &UnmatchedDebit,
) -> Result<bool, Error> {
    let op =
        [debit.payment_id.as_bytes().as_slice(), debit.attempt.to_string().as_bytes()].concat();
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes())
        .bytes(&op)
        .bytes(EntryId::new(user.slot()).as_bytes())
        .bytes(debit.reservation_id.as_ref().map_or(&[], |id| id.as_bytes()));
    let scope = KeyScope::partition(redis.keys().partition(user.slot()));
    Ok(redis.call(&scripts::WALLET_REFUND, scope, args).await?.int()? > 0)
}

/// `wallet/refund_cancelled`. Returns whether the money is refunded, now or by an earlier call.
pub(super) async fn refund_cancelled(
    redis: &RedisClient,
    missing: &MissingRefund,
) -> Result<bool, Error> {
    let user = UserId::from(missing.user_id);
    let op = |word: &str| [missing.id.as_bytes().as_slice(), word.as_bytes()].concat();
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes()).bytes(&op("c"));
    args.bytes(EntryId::new(user.slot()).as_bytes()).int(missing.refunded);
    args.bytes(&op(&missing.attempt.to_string())).int(missing.created_at.timestamp_millis());
    args.bytes(missing.reservation_id.as_bytes()).int(missing.ended.into()).text("");
    let scope = KeyScope::partition(redis.keys().partition(user.slot()));
    Ok(redis
        .call(&scripts::WALLET_REFUND_CANCELLED, scope, args)
        .await?
        .words()?
        .code::<WalletRefundCancelledCode>()?
        == WalletRefundCancelledCode::Refunded)
}

/// `recovery/repeat_debit`. Returns whether money was debited.
pub(super) async fn repeat_debit(
    redis: &RedisClient,
    user: UserId,
    args: ScriptArgs,
) -> Result<bool, Error> {
    let scope = KeyScope::partition(redis.keys().partition(user.slot()));
    Ok(redis
        .call(&scripts::RECOVERY_REPEAT_DEBIT, scope, args)
        .await?
        .code::<RecoveryRepeatDebitCode>()?
        == RecoveryRepeatDebitCode::Debited)
}

/// `recovery/resume_cancel`. Returns whether the cancellation continues.
pub(super) async fn resume_cancel(
    redis: &RedisClient,
    queue: &QueueId,
    refund: &UnmatchedRefund,
) -> Result<bool, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(refund.payment_id.as_bytes()).int(refund.total);
    for seat in refund.seats.split(',').filter_map(|seat| seat.parse().ok()) {
        args.int(seat);
    }
    Ok(redis
        .call(&scripts::RECOVERY_RESUME_CANCEL, KeyScope::queue(redis.keys(), queue), args)
        .await?
        .code::<RecoveryResumeCancelCode>()?
        == RecoveryResumeCancelCode::Resumed)
}

/// `recovery/scan_reserved_issues`. One page from a cursor ("0" at the start): issues that a
/// payment reserved and has not redeemed, with that payment.
pub(super) async fn scan_reserved_issues(
    redis: &RedisClient,
    coupon: &CouponId,
    cursor: &str,
) -> Result<(Option<String>, Vec<(IssueId, PaymentId)>), Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor);
    let scope = KeyScope::coupon(redis.keys(), coupon);
    let mut words =
        redis.call(&scripts::RECOVERY_SCAN_RESERVED_ISSUES, scope, args).await?.words()?;
    let next = Some(words.text()?).filter(|cursor| cursor != "0");
    let mut taken = Vec::new();
    while !words.is_empty() {
        let (issue, payment) = (words.word()?.bytes()?, words.word()?.bytes()?);
        let pair = IssueId::from_slice(&issue).zip(PaymentId::from_slice(&payment));
        taken.push(pair.ok_or_else(|| Error::Protocol("wanted two ids".into()))?);
    }
    Ok((next, taken))
}

/// `recovery/free_redemption`. Returns whether the issue belonged to the payment until now.
/// `owner`: the user and the time of issue, where MySQL has the issue as redeemed.
pub(super) async fn free_redemption(
    redis: &RedisClient,
    coupon: &CouponId,
    issue: IssueId,
    payment: PaymentId,
    owner: Option<(UserId, i64)>,
) -> Result<bool, Error> {
    let mut args = ScriptArgs::new();
    args.text(coupon.as_str()).bytes(issue.as_bytes()).bytes(payment.as_bytes());
    args.bytes(owner.as_ref().map_or(&[], |(user, _)| user.as_bytes()));
    args.optional_int(owner.map(|(_, issued_at)| issued_at));
    let scope = KeyScope::coupon(redis.keys(), coupon);
    Ok(redis
        .call(&scripts::RECOVERY_FREE_REDEMPTION, scope, args)
        .await?
        .code::<RecoveryFreeRedemptionCode>()?
        == RecoveryFreeRedemptionCode::Freed)
}
