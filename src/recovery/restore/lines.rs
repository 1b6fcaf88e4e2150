//! Lines. Their places are not in MySQL: the tokens carry them, and a window opens in which whoever shows one stands up again at the old score.
//!
//! Who must not: whoever used the token up, which a confirmed reservation tells by its score; and whoever was let in and whose slot was over before the
//! loss. Slots end after `claim_seconds` and `active_seconds`, and users are let in by score, so everybody up to the last score that was let in earlier than that
//! is through. (A hold may have kept a slot open for longer; holds are lost.) Whoever gave a place up before the loss and shows the token again gets it back: that is
//! noted nowhere but in Redis, and the place is theirs alone.

use futures::TryStreamExt;
use sqlx::MySqlConnection;
use uuid::Uuid;

use super::super::Error;
use super::{FencedWriter, payments};
use crate::ids::QueueId;
use crate::redis::{KeyScope, ScriptArgs, scripts};

/// Arrivals that each recovery takes as dealt: more than any line ever has, and few enough that half a million recoveries fit below 2^53.
const SCORES_PER_RESTORE: u64 = 1 << 34;

pub(super) async fn restore(
    hand: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    for queue in payments::queues(hand, mysql).await? {
        restore_queue(hand, mysql, &queue).await?;
    }
    Ok(())
}

async fn restore_queue(
    hand: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
    queue: &QueueId,
) -> Result<(), Error> {
    let place = KeyScope::queue(hand.redis.keys(), queue);
    // By the newest promotion in place of a clock: no time passed for the line since Redis was lost.
    let (admitted, over, restore, per_interval): (i64, i64, u32, u32) = sqlx::query_as(
        "SELECT CAST(COALESCE((SELECT SUM(p.count) FROM promotions p WHERE p.queue_id = q.id), 0) AS SIGNED), \
           CAST(COALESCE((SELECT MAX(p.to_score) FROM promotions p WHERE p.queue_id = q.id AND p.promoted_at < \
             (SELECT MAX(l.promoted_at) FROM promotions l WHERE l.queue_id = q.id) - INTERVAL (q.claim_seconds + q.active_seconds) SECOND), -1) AS SIGNED), \
           q.restore_seconds, q.promote_per_interval FROM queues q WHERE q.id = ?",
    )
    .bind(queue.as_str())
    .fetch_one(&mut *mysql)
    .await?;

    let list = "SELECT r.user_id, r.score FROM concerts c JOIN reservations r ON r.concert_id = c.id \
                WHERE r.queue_id = ? AND c.archived_at IS NULL AND r.status IN ('confirmed', 'cancelled') AND r.score > ?";
    let mut rows = sqlx::query_as(list).bind(queue.as_str()).bind(over).fetch(&mut *mysql);
    let mut pile = hand.hash_rows(place, "q:used");
    while let Some((user, score)) = rows.try_next().await? {
        let (user, score): (Uuid, i64) = (user, score);
        let field = [user.as_bytes().as_slice(), score.to_string().as_bytes()].concat();
        pile.add(hand, |args| {
            args.bytes(&field).text("");
        })
        .await?;
    }
    pile.write(hand).await?;
    drop(rows);

    let dealt = i64::try_from(hand.restore_count * SCORES_PER_RESTORE).unwrap_or(i64::MAX);
    let mut args = ScriptArgs::new();
    args.int(admitted)
        .int(i64::from(restore) * 1_000)
        .int(dealt)
        .int(per_interval.into())
        .int(over);
    hand.call(&scripts::RECOVERY_RESTORE_QUEUE, place, args, Vec::new()).await?;
    Ok(())
}
