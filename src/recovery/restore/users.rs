//! Users: facts and granted reward claims.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::MySqlConnection;
use uuid::Uuid;

use super::writer::FencedWriter;
use crate::recovery::Error;

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
    buffer.write(writer).await
}
