//! Users: facts, paid totals, and granted reward claims.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, MySqlConnection};
use uuid::Uuid;

use super::writer::FencedWriter;
use crate::recovery::Error;

pub(super) async fn restore(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let slots = writer.slots();
    let sql = format!(
        "SELECT user_id, CAST(facts AS CHAR) FROM user_facts WHERE slot IN ({slots}) AND \
         JSON_LENGTH(facts) > 0"
    );
    let mut rows = sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch(&mut *mysql);
    let mut buffer = writer.hash_rows(writer.scope(), "facts");
    while let Some((user, facts)) = rows.try_next().await? {
        let (user, facts): (Uuid, String) = (user, facts);
        buffer
            .add(writer, |args| {
                args.bytes(user.as_bytes()).text(&facts);
            })
            .await?;
    }
    buffer.write(writer).await?;
    drop(rows);

    // Every debit that was not refunded, also of payments in progress: a refund subtracts it again.
    // A payment with a discount of 100 % has no ledger entry and counts once.
    let sql = format!(
        "SELECT user_id, CAST(SUM(amount) AS SIGNED), CAST(SUM(times) AS SIGNED) FROM ( \
           SELECT STRAIGHT_JOIN e.user_id, IF(e.kind = 'payment', e.amount, -e.amount) AS amount, \
           IF(e.kind = 'payment', 1, -1) AS times \
           FROM wallets w JOIN wallet_entries e ON e.user_id = w.user_id WHERE w.slot IN ({slots}) \
           AND e.kind IN ('payment', 'refund') \
           UNION ALL SELECT user_id, 0, 1 FROM payments WHERE user_slot IN ({slots}) AND status = \
           'confirmed' AND amount = discount \
         ) debits GROUP BY user_id HAVING SUM(times) > 0"
    );
    let mut rows = sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch(&mut *mysql);
    let mut buffer = writer.hash_rows(writer.scope(), "tallies");
    while let Some((user, total, count)) = rows.try_next().await? {
        let (user, total, count): (Uuid, i64, i64) = (user, total, count);
        buffer
            .add(writer, |args| {
                args.bytes(user.as_bytes()).text(&format!("{total} {count}"));
            })
            .await?;
    }
    buffer.write(writer).await?;
    drop(rows);

    let sql = format!(
        "SELECT id, user_id, code, claimed_at FROM reward_claims WHERE slot IN ({slots}) AND once \
         = 1"
    );
    let mut rows = sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch(&mut *mysql);
    let mut buffer = writer.hash_rows(writer.scope(), "claims");
    while let Some((id, user, code, at)) = rows.try_next().await? {
        let (id, user, code, at): (Uuid, Uuid, String, DateTime<Utc>) = (id, user, code, at);
        let field = [user.as_bytes().as_slice(), code.as_bytes()].concat();
        let value =
            [id.as_bytes().as_slice(), at.timestamp_millis().to_string().as_bytes()].concat();
        buffer
            .add(writer, |args| {
                args.bytes(&field).bytes(&value);
            })
            .await?;
    }
    buffer.write(writer).await
}
