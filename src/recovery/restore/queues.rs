//! Queues. MySQL does not have the positions of waiting users: the queue tokens contain them. The
//! restore opens a window of `restore_seconds` in which a user who shows a token regains the old
//! score.
//!
//! Two kinds of users must not regain a position. Users who used their admission are recognized by
//! the score of their confirmed reservation. Users whose active slot had ended before the loss are
//! recognized by time: a slot ends after `claim_seconds` plus `active_seconds`, and users are
//! admitted in score order, so every score up to the last one that was admitted earlier than that
//! is over. (A hold may have kept a slot open for longer, but holds are lost.) A user who left the
//! queue before the loss and shows the token again regains the position: only Redis knew of the
//! leave, and no other user has that position.

use futures::TryStreamExt;
use sqlx::MySqlConnection;
use uuid::Uuid;

use super::payments;
use super::writer::FencedWriter;
use crate::ids::QueueId;
use crate::recovery::Error;
use crate::redis::constants::SCORES_PER_SEGMENT;
use crate::redis::{KeyScope, ScriptArgs, scripts};

/// Scores that each restore reserves: more than a queue assigns between two losses of Redis.
const SCORES_PER_RESTORE: u64 = 1 << 29;
/// Keeps the scores of arrivals within their segment.
const MAX_RESTORES: u64 = SCORES_PER_SEGMENT as u64 / SCORES_PER_RESTORE - 2;

pub(super) async fn restore(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    for queue in payments::partition_queues(writer, mysql).await? {
        restore_queue(writer, mysql, &queue).await?;
    }
    Ok(())
}

async fn restore_queue(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
    queue: &QueueId,
) -> Result<(), Error> {
    let scope = KeyScope::queue(writer.redis.keys(), queue);
    // The newest promotion serves as the clock: no time passes for a queue while its Redis is lost.
    let (admitted, over, restore, per_interval, draw): (i64, i64, u32, u32, u32) = sqlx::query_as(
        "SELECT CAST(COALESCE((SELECT SUM(p.count) FROM promotions p WHERE p.queue_id = q.id), 0) \
         AS SIGNED), \
           CAST(COALESCE((SELECT MAX(p.to_score) FROM promotions p WHERE p.queue_id = q.id AND \
           p.promoted_at < \
             (SELECT MAX(l.promoted_at) FROM promotions l WHERE l.queue_id = q.id) - INTERVAL \
             (q.claim_seconds + q.active_seconds) SECOND), -1) AS SIGNED), \
           q.restore_seconds, q.promote_per_interval, q.draw FROM queues q WHERE q.id = ?",
    )
    .bind(queue.as_str())
    .fetch_one(&mut *mysql)
    .await?;

    let list = "SELECT r.user_id, r.score FROM concerts c JOIN reservations r ON r.concert_id = \
                c.id \
                WHERE r.queue_id = ? AND c.archived_at IS NULL AND r.status IN ('confirmed', \
                'cancelled') AND r.score > ?";
    let mut rows = sqlx::query_as(list).bind(queue.as_str()).bind(over).fetch(&mut *mysql);
    let mut buffer = writer.hash_rows(scope, "q:used");
    while let Some((user, score)) = rows.try_next().await? {
        let (user, score): (Uuid, i64) = (user, score);
        let field = [user.as_bytes().as_slice(), score.to_string().as_bytes()].concat();
        buffer
            .add(writer, |args| {
                args.bytes(&field).text("");
            })
            .await?;
    }
    buffer.write(writer).await?;
    drop(rows);

    let dealt = i64::try_from(writer.restore_count.min(MAX_RESTORES) * SCORES_PER_RESTORE)
        .unwrap_or(i64::MAX);
    let mut args = ScriptArgs::new();
    args.text(queue.as_str())
        .int(admitted)
        .int(i64::from(restore) * 1_000)
        .int(dealt)
        .int(per_interval.into())
        .int(over)
        .int((2 * i64::from(draw) + 1) * SCORES_PER_SEGMENT + dealt);
    writer.call(&scripts::RECOVERY_RESTORE_QUEUE, scope, args, Vec::new()).await?;
    Ok(())
}
