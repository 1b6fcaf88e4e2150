//! Coupons: issues, and which payment redeemed which issue.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::MySqlConnection;
use uuid::Uuid;

use super::writer::{FencedWriter, RowBuffer};
use crate::ids::CouponId;
use crate::recovery::Error;
use crate::redis::{KeyScope, ScriptArgs, scripts};

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
    let list = "SELECT id, user_id, issued_at FROM coupon_issues WHERE coupon_id = ?";
    let mut rows = sqlx::query_as(list).bind(coupon.as_str()).fetch(&mut *mysql);
    let mut buffer = writer.hash_rows(scope, "c:issues");
    while let Some((id, user, at)) = rows.try_next().await? {
        let (id, user, at): (Uuid, Uuid, DateTime<Utc>) = (id, user, at);
        let value =
            [id.as_bytes().as_slice(), at.timestamp_millis().to_string().as_bytes()].concat();
        buffer
            .add(writer, |args| {
                args.bytes(user.as_bytes()).bytes(&value);
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
    buffer.write(writer).await
}
