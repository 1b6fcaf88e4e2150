//! Users: facts and granted reward claims.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::MySqlConnection;
use uuid::Uuid;

use super::writer::{FencedWriter, RowBuffer};
use crate::recovery::Error;
use crate::redis::{ScriptArgs, scripts};

pub(super) async fn restore(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let mut query = writer.slot_query(
        "SELECT user_id, CAST(facts AS CHAR) FROM user_facts WHERE slot IN (",
        ") AND JSON_LENGTH(facts) > 0",
    );
    let mut rows = query.build_query_as().fetch(&mut *mysql);
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

    let mut query = writer.slot_query(
        "SELECT id, user_id, code, claimed_at FROM reward_claims WHERE slot IN (",
        ") AND once = 1",
    );
    let mut rows = query.build_query_as().fetch(&mut *mysql);
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
    buffer.write(writer).await?;
    drop(rows);
    restore_revocable(writer, mysql).await
}

/// Claims that a refund can revoke.
async fn restore_revocable(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let mut query = writer.slot_query(
        "SELECT user_id, id, code, points, conditions FROM reward_claims WHERE slot IN (",
        ") AND once = 1 AND status = 'success' AND points IS NOT NULL AND conditions IS NOT NULL",
    );
    let mut rows = query.build_query_as().fetch(mysql);
    let mut buffer =
        RowBuffer::new(&scripts::RECOVERY_RESTORE_REVOCABLE, writer.scope(), ScriptArgs::new());
    while let Some((user, claim, code, points, conditions)) = rows.try_next().await? {
        let (user, claim, code): (Uuid, Uuid, String) = (user, claim, code);
        let (points, conditions): (i64, String) = (points, conditions);
        let add = |args: &mut ScriptArgs| {
            args.bytes(user.as_bytes()).bytes(claim.as_bytes()).text(&code);
            args.int(points).text(&conditions);
        };
        buffer.add(writer, add).await?;
    }
    buffer.write(writer).await
}
