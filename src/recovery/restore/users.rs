//! What is known of users: facts, tallies, and which rewards they claimed.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, MySqlConnection};
use uuid::Uuid;

use super::super::Error;
use super::FencedWriter;

pub(super) async fn restore(
    hand: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let slots = hand.slots();
    let sql = format!(
        "SELECT user_id, CAST(facts AS CHAR) FROM user_facts WHERE slot IN ({slots}) AND JSON_LENGTH(facts) > 0"
    );
    let mut rows = sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch(&mut *mysql);
    let mut pile = hand.hash_rows(hand.scope(), "facts");
    while let Some((user, facts)) = rows.try_next().await? {
        let (user, facts): (Uuid, String) = (user, facts);
        pile.add(hand, |args| {
            args.bytes(user.as_bytes()).text(&facts);
        })
        .await?;
    }
    pile.write(hand).await?;
    drop(rows);

    // Every debit that was not given back, those of payments without an end too: giving them back takes them off again. A payment of nothing has no entry.
    let sql = format!(
        "SELECT user_id, CAST(SUM(amount) AS SIGNED), CAST(SUM(times) AS SIGNED) FROM ( \
           SELECT STRAIGHT_JOIN e.user_id, IF(e.kind = 'payment', e.amount, -e.amount) AS amount, IF(e.kind = 'payment', 1, -1) AS times \
           FROM wallets w JOIN wallet_entries e ON e.user_id = w.user_id WHERE w.slot IN ({slots}) AND e.kind IN ('payment', 'refund') \
           UNION ALL SELECT user_id, 0, 1 FROM payments WHERE user_slot IN ({slots}) AND status = 'confirmed' AND amount = discount \
         ) debits GROUP BY user_id HAVING SUM(times) > 0"
    );
    let mut rows = sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch(&mut *mysql);
    let mut pile = hand.hash_rows(hand.scope(), "tallies");
    while let Some((user, total, count)) = rows.try_next().await? {
        let (user, total, count): (Uuid, i64, i64) = (user, total, count);
        pile.add(hand, |args| {
            args.bytes(user.as_bytes()).text(&format!("{total} {count}"));
        })
        .await?;
    }
    pile.write(hand).await?;
    drop(rows);

    let sql = format!(
        "SELECT id, user_id, code, claimed_at FROM reward_claims WHERE slot IN ({slots}) AND once = 1"
    );
    let mut rows = sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch(&mut *mysql);
    let mut pile = hand.hash_rows(hand.scope(), "claims");
    while let Some((id, user, code, at)) = rows.try_next().await? {
        let (id, user, code, at): (Uuid, Uuid, String, DateTime<Utc>) = (id, user, code, at);
        let field = [user.as_bytes().as_slice(), code.as_bytes()].concat();
        let value =
            [id.as_bytes().as_slice(), at.timestamp_millis().to_string().as_bytes()].concat();
        pile.add(hand, |args| {
            args.bytes(&field).bytes(&value);
        })
        .await?;
    }
    pile.write(hand).await
}
