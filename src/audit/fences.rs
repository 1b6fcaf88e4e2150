//! What stands between the stores: generations, sequences, checkpoints and outboxes.

use super::{AuditContext, CheckTally};
use crate::mysql::checkpoint;
use crate::partition::Partition;
use crate::store_error::StoreError;

/// The generation is one, MySQL is not ahead of Redis, and the outbox has all that follows the checkpoint.
pub(super) async fn check(scene: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "partitions",
        "one generation, and an outbox without a gap from the checkpoint on",
    );
    let partitions: Vec<Partition> = scene.partitions().collect();
    tally.count_mysql(partitions.len());
    let marks = scene.redis.fence_marks(&partitions).await?;
    tally.count_redis(marks.iter().filter(|marks| marks.fence.epoch().is_some()).count() as u64);
    scene
        .inspect(&mut tally, partitions, &|some: Vec<Partition>| async move {
            inspect(scene, &some).await
        })
        .await?;
    Ok(tally)
}

async fn inspect(
    scene: &AuditContext<'_>,
    some: &[Partition],
) -> Result<Vec<(Partition, String)>, StoreError> {
    let mut faults = Vec::new();
    for &partition in some {
        // The outbox first and the checkpoint after it: what was trimmed in between is in MySQL.
        let marks = scene.redis.fence_marks(&[partition]).await?[0];
        let ends = scene.redis.outbox_ends(partition).await?;
        let same = scene.redis.outbox_ends(partition).await? == ends;
        let checkpoint = checkpoint::load(scene.mysql, partition).await?;
        let mut wrong = |text: String| faults.push((partition, format!("{partition}: {text}")));
        if checkpoint.epoch != marks.fence.epoch() {
            wrong(format!(
                "generation {:?} in Redis, {:?} in MySQL",
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
                    "MySQL is at {}, but the outbox begins at {}",
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
        let seq = scene.redis.fence_marks(&[partition]).await?[0].seq;
        if checkpoint.n > seq {
            wrong(format!("MySQL is at {}, Redis only at {seq}", checkpoint.n));
        }
    }
    Ok(faults)
}
