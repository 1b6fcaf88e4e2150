//! Coupons: issues, and which payment redeemed which issue.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{FromRow, MySqlConnection};
use uuid::Uuid;

use super::writer::{FencedWriter, RowBuffer};
use crate::coupon_terms::{CouponDiscount, CouponTerms};
use crate::ids::CouponId;
use crate::money::Money;
use crate::recovery::Error;
use crate::redis::{KeyScope, ScriptArgs, scripts};

#[derive(FromRow)]
struct RestoredIssue {
    id: Uuid,
    user_id: Uuid,
    issued_at: DateTime<Utc>,
    discount_kind: String,
    discount_amount: Option<i64>,
    discount_percent: Option<u32>,
    discount_limit: Option<i64>,
    min_available_amount: i64,
    valid_until: Option<DateTime<Utc>>,
}

impl RestoredIssue {
    /// The record as in `lua/lib/coupon.lua`.
    fn record(&self) -> Result<Vec<u8>, Error> {
        let invalid = || Error::InvalidRow("coupon_issues", self.id.to_string());
        let terms = CouponTerms {
            discount: CouponDiscount {
                kind: self.discount_kind.parse().map_err(|_| invalid())?,
                amount: self.discount_amount.and_then(Money::new),
                percent: self.discount_percent,
                limit: self.discount_limit.and_then(Money::new),
                min_available_amount: Money::new(self.min_available_amount).ok_or_else(invalid)?,
            },
            valid_until: self.valid_until.map(|until| until.timestamp_millis()),
        };
        let text = format!("{}:{terms}", self.issued_at.timestamp_millis());
        Ok([self.id.as_bytes().as_slice(), text.as_bytes()].concat())
    }
}

pub(super) async fn restore(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT id FROM coupons ORDER BY id").fetch_all(&mut *mysql).await?;
    for name in names {
        let coupon: CouponId =
            name.parse().map_err(|_| Error::InvalidRow("coupons", name.clone()))?;
        if writer.redis.keys().partition(coupon.slot()) == writer.partition {
            restore_coupon(writer, mysql, &coupon).await?;
        }
    }
    Ok(())
}

async fn restore_coupon(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
    coupon: &CouponId,
) -> Result<(), Error> {
    let scope = KeyScope::coupon(writer.redis.keys(), coupon);
    let list = "SELECT id, user_id, issued_at, discount_kind, discount_amount, discount_percent, \
                discount_limit, min_available_amount, valid_until FROM coupon_issues \
                WHERE coupon_id = ?";
    let mut rows = sqlx::query_as(list).bind(coupon.as_str()).fetch(&mut *mysql);
    let mut buffer = writer.hash_rows(scope, "c:issues");
    while let Some(row) = rows.try_next().await? {
        let row: RestoredIssue = row;
        let value = row.record()?;
        buffer
            .add(writer, |args| {
                args.bytes(row.user_id.as_bytes()).bytes(&value);
            })
            .await?;
    }
    buffer.write(writer).await?;
    drop(rows);

    // Also redemptions whose payment MySQL does not have: the reconciler decides whether they are
    // kept.
    let list = "SELECT i.id, i.payment_id, CAST(COALESCE(p.attempt, 0) AS SIGNED), \
                CAST(COALESCE(p.discount, 0) AS SIGNED), i.used_at \
                FROM coupon_issues i LEFT JOIN payments p ON p.id = i.payment_id \
                WHERE i.coupon_id = ? AND i.used_at IS NOT NULL AND i.payment_id IS NOT NULL";
    let mut rows = sqlx::query_as(list).bind(coupon.as_str()).fetch(&mut *mysql);
    let mut buffer =
        RowBuffer::new(&scripts::RECOVERY_RESTORE_REDEMPTIONS, scope, ScriptArgs::new());
    while let Some((issue, payment, attempt, discount, at)) = rows.try_next().await? {
        let (issue, payment, attempt): (Uuid, Uuid, i64) = (issue, payment, attempt);
        let (discount, at): (i64, DateTime<Utc>) = (discount, at);
        let add = |args: &mut ScriptArgs| {
            args.bytes(issue.as_bytes()).bytes(payment.as_bytes()).int(attempt);
            args.int(discount).int(at.timestamp_millis());
        };
        buffer.add(writer, add).await?;
    }
    drop(rows);

    // Those that external payments which wait have reserved.
    let list = "SELECT coupon_issue_id, id, attempt, discount FROM pending_payments WHERE \
                coupon_id = ? AND coupon_issue_id IS NOT NULL AND discount > 0";
    let mut rows = sqlx::query_as(list).bind(coupon.as_str()).fetch(&mut *mysql);
    while let Some((issue, payment, attempt, discount)) = rows.try_next().await? {
        let (issue, payment, attempt, discount): (Uuid, Uuid, u32, i64) =
            (issue, payment, attempt, discount);
        let add = |args: &mut ScriptArgs| {
            args.bytes(issue.as_bytes()).bytes(payment.as_bytes()).int(attempt.into());
            args.int(discount).text("");
        };
        buffer.add(writer, add).await?;
    }
    buffer.write(writer).await
}
