//! The statements of the writer on payments.

use chrono::DateTime;
use sqlx::types::Json;
use sqlx::{MySqlConnection, QueryBuilder};

use super::event::{ExternalPayment, PaymentEvent, PendingPaymentEvent};
use super::sql::{RowValues, bytes, chunks, insert};
use crate::ids::{CouponId, IssueId, PaymentId, ReferenceKey};
use crate::money::Money;
use crate::mysql::Error;
use crate::time::datetime;

pub(super) async fn write_payments(
    tx: &mut MySqlConnection,
    rows: &[&PaymentEvent],
) -> Result<(), Error> {
    let head = "INSERT INTO payments (id, reservation_id, user_id, queue_id, amount, discount, \
                status, reason, attempt, \
                balance_after, coupon_id, coupon_issue_id, created_at, settled_at, user_slot, \
                idempotency_key, fingerprint, refunded, external_amount, provider, reference, \
                reference_key, provider_refunds, refund_due_since) ";
    let tail = " ON DUPLICATE KEY UPDATE amount = VALUES(amount), discount = VALUES(discount), \
                status = VALUES(status), \
                coupon_id = VALUES(coupon_id), coupon_issue_id = VALUES(coupon_issue_id), \
                reason = VALUES(reason), attempt = VALUES(attempt), balance_after = \
                VALUES(balance_after), \
                created_at = VALUES(created_at), settled_at = VALUES(settled_at), idempotency_key \
                = VALUES(idempotency_key), \
                fingerprint = VALUES(fingerprint), refunded = VALUES(refunded), external_amount = \
                VALUES(external_amount), provider = VALUES(provider), reference = \
                VALUES(reference), reference_key = VALUES(reference_key), provider_refunds = \
                VALUES(provider_refunds), refund_due_since = VALUES(refund_due_since)";
    insert(tx, head, tail, rows, |row, p| {
        row.push_bind(p.id.uuid()).push_bind(p.reservation.uuid()).push_bind(p.user.uuid());
        row.push_bind(p.queue.as_str()).push_bind(p.amount.get()).push_bind(p.discount.get());
        row.push_bind(p.status.as_str()).push_bind(p.reason.as_deref()).push_bind(p.attempt);
        row.push_bind(p.balance_after.map(|balance| balance.get()));
        row.push_bind(p.coupon.as_ref().map(CouponId::as_str))
            .push_bind(p.issue.map(IssueId::uuid));
        row.push_bind(p.created_at).push_bind(p.at).push_bind(p.user.slot().get());
        row.push_bind(p.key.as_deref()).push_bind(bytes(p.fingerprint.as_ref()));
        row.push_bind(p.refunded.unwrap_or(Money::ZERO).get());
        push_external(row, p.external.as_deref());
    })
    .await
}

/// A wallet pays all of a payment without an external amount.
fn push_external(row: &mut RowValues<'_>, external: Option<&ExternalPayment>) {
    let due = external.map(|external| external.due_amount.unwrap_or(Money::ZERO).get());
    let provider = external.and_then(|external| external.provider.as_deref());
    let reference = external.and_then(|external| external.reference.as_deref());
    let key = provider.zip(reference).map(|(name, text)| ReferenceKey::of(name, text));
    row.push_bind(due).push_bind(provider.map(str::to_owned));
    row.push_bind(reference.map(str::to_owned)).push_bind(key.map(|key| key.as_bytes().to_vec()));
    let refunds = external.map(|external| external.refunds.clone());
    row.push_bind(refunds.filter(|refunds| !refunds.is_empty()).map(Json));
    let since = external.and_then(|external| external.refund_due_since);
    row.push_bind(since.and_then(DateTime::from_timestamp_millis).map(datetime));
}

pub(super) async fn delete_pending(
    tx: &mut MySqlConnection,
    ended: &[&PaymentId],
) -> Result<(), Error> {
    for chunk in chunks(ended) {
        let mut delete = QueryBuilder::new("DELETE FROM pending_payments WHERE id IN (");
        let mut ids = delete.separated(", ");
        for id in chunk {
            ids.push_bind(id.uuid());
        }
        delete.push(")").build().execute(&mut *tx).await?;
    }
    Ok(())
}

/// A later attempt replaces an earlier one.
pub(super) async fn write_pending(
    tx: &mut MySqlConnection,
    rows: &[&PendingPaymentEvent],
) -> Result<(), Error> {
    let head = "INSERT INTO pending_payments (id, reservation_id, user_id, user_slot, queue_id, \
                schedule_id, attempt, discount, wallet_amount, coupon_id, coupon_issue_id, \
                idempotency_key, fingerprint, created_at, due_at, payment_record, \
                reservation_record) ";
    let tail = " ON DUPLICATE KEY UPDATE attempt = VALUES(attempt), discount = VALUES(discount), \
                wallet_amount = VALUES(wallet_amount), coupon_id = VALUES(coupon_id), \
                coupon_issue_id = VALUES(coupon_issue_id), idempotency_key = \
                VALUES(idempotency_key), fingerprint = VALUES(fingerprint), created_at = \
                VALUES(created_at), due_at = VALUES(due_at), payment_record = \
                VALUES(payment_record), reservation_record = VALUES(reservation_record)";
    insert(tx, head, tail, rows, |row, p| {
        row.push_bind(p.id.uuid()).push_bind(p.reservation.uuid()).push_bind(p.user.uuid());
        row.push_bind(p.user.slot().get()).push_bind(p.queue.as_str());
        row.push_bind(p.schedule.as_str()).push_bind(p.attempt).push_bind(p.discount.get());
        row.push_bind(p.wallet_amount.get()).push_bind(p.coupon.as_ref().map(CouponId::as_str));
        row.push_bind(p.issue.map(IssueId::uuid)).push_bind(p.key.as_deref());
        row.push_bind(bytes(p.fingerprint.as_ref())).push_bind(p.created_at);
        row.push_bind(datetime(p.due_at)).push_bind(p.payment_record.as_slice());
        row.push_bind(p.reservation_record.as_slice());
    })
    .await
}
