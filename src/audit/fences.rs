//! Epochs, sequences, checkpoints and outboxes.

use super::{AuditContext, CheckTally};
use crate::mysql::checkpoint;
use crate::partition::Partition;
use crate::store_error::StoreError;

/// Both stores have the same epoch, MySQL is not ahead of Redis, and the outbox has every entry
/// after the checkpoint.
pub(super) async fn check(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "partitions",
        "the same epoch in both stores, and no gap in the outbox after the checkpoint",
    );
    let partitions: Vec<Partition> = context.partitions().collect();
    tally.count_mysql(partitions.len());
    let marks = context.redis.fence_marks(&partitions).await?;
    tally.count_redis(marks.iter().filter(|marks| marks.fence.epoch().is_some()).count() as u64);
    context
        .inspect(&mut tally, partitions, &|chunk: Vec<Partition>| async move {
            inspect(context, &chunk).await
        })
        .await?;
    Ok(tally)
}

async fn inspect(
    context: &AuditContext<'_>,
    chunk: &[Partition],
) -> Result<Vec<(Partition, String)>, StoreError> {
    let mut faults = Vec::new();
    for &partition in chunk {
        // The outbox before the checkpoint: what is trimmed in between is in MySQL.
        let marks = context.redis.fence_marks(&[partition]).await?[0];
        let ends = context.redis.outbox_ends(partition).await?;
        let same = context.redis.outbox_ends(partition).await? == ends;
        let checkpoint = checkpoint::load(context.mysql, partition).await?;
        let mut wrong = |text: String| faults.push((partition, format!("{partition}: {text}")));
        if checkpoint.epoch != marks.fence.epoch() {
            wrong(format!(
                "epoch {:?} in Redis, {:?} in MySQL",
                marks.fence.epoch(),
                checkpoint.epoch
            ));
        }
        match ends {
            None if checkpoint.n < marks.seq => {
                wrong(format!(
                    "the outbox is empty, but MySQL is at {} of {}",
                    checkpoint.n, marks.seq
                ));
            }
            Some(ends) if ends.first > checkpoint.n + 1 => {
                wrong(format!(
                    "MySQL is at {}, but the outbox starts at {}",
                    checkpoint.n, ends.first
                ));
            }
            Some(ends) if same && ends.last + 1 - ends.first != ends.count => {
                wrong(format!("{ends:?} has a gap"))
            }
            Some(ends) if ends.last < marks.seq => {
                wrong(format!("{ends:?} ends before {}", marks.seq))
            }
            _ => {}
        }
        let seq = context.redis.fence_marks(&[partition]).await?[0].seq;
        if checkpoint.n > seq {
            wrong(format!("MySQL is at {}, Redis only at {seq}", checkpoint.n));
        }
    }
    Ok(faults)
}
