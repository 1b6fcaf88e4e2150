//! Lines: one place each, nobody both waiting and active, never more inside than may be, in order and no faster than allowed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{AuditContext, CheckTally};
use crate::ids::QueueId;
use crate::partition::Partition;
use crate::store_error::StoreError;

/// All of it.
pub(super) async fn check(scene: &AuditContext<'_>) -> Result<Vec<CheckTally>, StoreError> {
    let (places, last) = (check_memberships(scene).await?, check_promotions(scene).await?);
    let mut capacity = CheckTally::new("capacity", "no more users inside than max_active");
    let queues: Vec<_> =
        scene.reinspection.queues().map(|(partition, queue)| (partition, queue.clone())).collect();
    scene
        .inspect(&mut capacity, queues, &|some: Vec<(Partition, QueueId)>| async move {
            check_capacity(scene, &some).await
        })
        .await?;
    Ok(vec![places, capacity, last])
}

/// Everybody who stands in line has no running slot, and every running slot has its record.
async fn check_memberships(scene: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally =
        CheckTally::new("places", "nobody both waits and is active; every slot has its record");
    for (partition, queue) in scene.reinspection.queues() {
        for zset in ["waiting", "active"] {
            let mut from = None;
            loop {
                let part =
                    scene.redis.scan_zset(partition, &format!("q:{queue}:{zset}"), from).await?;
                let users: Vec<Bytes> = part.pairs.into_iter().map(|(user, _)| user).collect();
                tally.count_redis(users.len() as u64);
                let inspect = |some: Vec<Bytes>| async move {
                    inspect_memberships(scene, partition, queue, &some).await
                };
                scene.inspect(&mut tally, users, &inspect).await?;
                from = part.next;
                if from.is_none() {
                    break;
                }
            }
        }
    }
    Ok(tally)
}

async fn inspect_memberships(
    scene: &AuditContext<'_>,
    partition: Partition,
    queue: &QueueId,
    users: &[Bytes],
) -> Result<Vec<(Bytes, String)>, StoreError> {
    let key = |name: &str| format!("q:{queue}:{name}");
    let now = scene.redis.clock(partition).await?;
    let waiting = scene.redis.zset_scores(partition, &key("waiting"), users).await?;
    let active = scene.redis.zset_scores(partition, &key("active"), users).await?;
    let records = scene.redis.hash_fields(partition, &key("admitted"), users).await?;
    let mut faults = Vec::new();
    for (((user, waits), deadline), record) in users.iter().zip(waiting).zip(active).zip(records) {
        let runs = deadline.as_ref().is_some_and(|deadline| number(deadline) > now);
        let name =
            uuid::Uuid::from_slice(user).map_or_else(|_| format!("{user:?}"), |id| id.to_string());
        if waits.is_some() && runs {
            faults.push((user.clone(), format!("{name} both waits and is active in {queue}")));
        }
        if runs && record.is_none() {
            faults.push((user.clone(), format!("{name} has a slot in {queue} without a record")));
        }
    }
    Ok(faults)
}

/// Nobody is let in above `max_active`. A limit that was lowered below those who were inside is none of that: nobody was let in since.
async fn check_capacity(
    scene: &AuditContext<'_>,
    queues: &[(Partition, QueueId)],
) -> Result<Vec<((Partition, QueueId), String)>, StoreError> {
    let mut faults = Vec::new();
    for (partition, queue) in queues {
        let now = scene.redis.clock(*partition).await?;
        let (most, newest): (u32, Option<DateTime<Utc>>) = sqlx::query_as(
            "SELECT q.max_active, (SELECT MAX(p.promoted_at) FROM promotions p WHERE p.queue_id = q.id) FROM queues q WHERE q.id = ?",
        )
        .bind(queue.as_str())
        .fetch_one(scene.mysql)
        .await?;
        let active = scene.redis.count_above(*partition, &format!("q:{queue}:active"), now).await?;
        let newest = newest.map(|at| at.timestamp_millis());
        let let_in_since = newest > settings_since(scene, *partition, queue).await?;
        if active > u64::from(most) && let_in_since {
            let place = (*partition, queue.clone());
            faults.push((
                place,
                format!("{active} are active in {queue}, which has room for {most}"),
            ));
        }
    }
    Ok(faults)
}

/// The moment from which on the queue's settings of now hold.
async fn settings_since(
    scene: &AuditContext<'_>,
    partition: Partition,
    queue: &QueueId,
) -> Result<Option<i64>, StoreError> {
    let field = [Bytes::from_static(b"since")];
    let found = scene.redis.hash_fields(partition, &format!("q:{queue}:bucket"), &field).await?;
    Ok(found.into_iter().next().flatten().map(|at| number(&at)))
}

/// Some users who were let in at once.
#[derive(sqlx::FromRow)]
struct AuditedPromotion {
    n: u64,
    idx: u16,
    queue_id: String,
    from_score: i64,
    to_score: i64,
    count: u32,
    promoted_at: DateTime<Utc>,
}

/// What is known of one line while its promotions go by.
struct QueueReplay {
    since: i64,
    interval: i64,
    most: i64,
    last: i64,
    /// The promotions of the last interval, of those under the settings of now: when, and how many.
    recent: VecDeque<(i64, i64)>,
    in_interval: i64,
}

impl QueueReplay {
    /// The next promotion, and what is wrong with it. Under settings of before only the order is looked at; their limits are not known any more.
    fn next(&mut self, it: &AuditedPromotion) -> Option<String> {
        let (from, to, count, at) =
            (it.from_score, it.to_score, i64::from(it.count), it.promoted_at.timestamp_millis());
        // Other settings may deal places anew (another lottery), and so does laying a lost line back.
        let same_settings = at >= self.since;
        if same_settings && self.recent.is_empty() {
            self.last = -1;
        }
        let wrong = (from <= self.last || to < from)
            .then(|| format!("{from}…{to} was let in after {}", self.last));
        self.last = to;
        if !same_settings {
            return wrong;
        }
        self.recent.push_back((at, count));
        self.in_interval += count;
        while let Some((_, gone)) =
            self.recent.front().copied().filter(|(old, _)| old + self.interval <= at)
        {
            self.recent.pop_front();
            self.in_interval -= gone;
        }
        let (many, most, interval) = (self.in_interval, self.most, self.interval);
        wrong.or_else(|| {
            (many > most).then(|| format!("{many} within {interval} ms, and {most} are allowed"))
        })
    }
}

/// Every promotion follows the one before it, and no interval let in more than the settings of its time allow, as far as they are known.
async fn check_promotions(scene: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "promotions",
        "in score order, at most promote_per_interval in any interval since the settings last changed",
    );
    let mut lines = BTreeMap::new();
    let settings: Vec<(String, u32, u32)> =
        sqlx::query_as("SELECT id, interval_ms, promote_per_interval FROM queues")
            .fetch_all(scene.mysql)
            .await?;
    for (partition, queue) in scene.reinspection.queues() {
        let Some((_, interval, most)) = settings.iter().find(|(id, ..)| id == queue.as_str())
        else {
            continue;
        };
        let since = settings_since(scene, partition, queue).await?.unwrap_or_default();
        let (interval, most) = (i64::from(*interval), i64::from(*most));
        let line = QueueReplay {
            since,
            interval,
            most,
            last: -1,
            recent: VecDeque::new(),
            in_interval: 0,
        };
        lines.insert(queue.as_str().to_owned(), line);
    }
    // Numbers go on when the count of partitions is changed, so a queue's promotions have the order of their numbers, in whichever partition it stood.
    let ever: Option<u16> = sqlx::query_scalar("SELECT MAX(partition_id) FROM promotions")
        .fetch_one(scene.mysql)
        .await?;
    let mut walks: Vec<PromotionWalk> =
        ever.map_or(0..0, |last| 0..last + 1).map(PromotionWalk::new).collect();
    let rows = (MAX_BUFFERED_PROMOTIONS / walks.len().max(1)).clamp(20, 1000);
    let mut next = BinaryHeap::new();
    for (at, walk) in walks.iter_mut().enumerate() {
        walk.fill(scene, &mut tally, rows).await?;
        next.extend(walk.page.front().map(|it| Reverse((it.n, it.idx, at))));
    }
    while let Some(Reverse((.., at))) = next.pop() {
        let walk = &mut walks[at];
        let Some(it) = walk.page.pop_front() else { continue };
        let wrong = lines.get_mut(&it.queue_id).and_then(|line| line.next(&it));
        tally.add_faults(wrong.into_iter().map(|wrong| format!("{}: {wrong}", it.queue_id)).collect());
        if walk.page.is_empty() {
            walk.fill(scene, &mut tally, rows).await?;
        }
        next.extend(walk.page.front().map(|it| Reverse((it.n, it.idx, at))));
    }
    Ok(tally)
}

/// Promotions that the walks through all partitions hold at once, about.
const MAX_BUFFERED_PROMOTIONS: usize = 64_000;

/// The promotions that were made in partitions of one number, in order, some at a time.
struct PromotionWalk {
    partition: u16,
    last: (u64, u16),
    page: VecDeque<AuditedPromotion>,
}

impl PromotionWalk {
    fn new(partition: u16) -> Self {
        Self { partition, last: (0, 0), page: VecDeque::new() }
    }

    async fn fill(
        &mut self,
        scene: &AuditContext<'_>,
        tally: &mut CheckTally,
        rows: usize,
    ) -> Result<(), StoreError> {
        let (n, idx) = self.last;
        let page: Vec<AuditedPromotion> = sqlx::query_as(
            "SELECT n, idx, queue_id, from_score, to_score, count, promoted_at FROM promotions \
             WHERE partition_id = ? AND (n > ? OR n = ? AND idx > ?) ORDER BY n, idx LIMIT ?",
        )
        .bind(self.partition)
        .bind(n)
        .bind(n)
        .bind(idx)
        .bind(rows as u64)
        .fetch_all(scene.mysql)
        .await?;
        scene.record_progress(tally.name, page.len());
        tally.count_mysql(page.len());
        if let Some(end) = page.last() {
            self.last = (end.n, end.idx);
        }
        self.page = page.into();
        Ok(())
    }
}

fn number(text: &Bytes) -> i64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> QueueReplay {
        QueueReplay {
            since: 0,
            interval: 1_000,
            most: 8,
            last: -1,
            recent: VecDeque::new(),
            in_interval: 0,
        }
    }

    fn let_in(from_score: i64, to_score: i64, count: u32, at: i64) -> AuditedPromotion {
        let promoted_at = DateTime::from_timestamp_millis(at).unwrap();
        AuditedPromotion {
            n: 0,
            idx: 0,
            queue_id: String::new(),
            from_score,
            to_score,
            count,
            promoted_at,
        }
    }

    #[test]
    fn a_fair_line_has_no_faults() {
        let mut line = line();
        for (from, to, count, at) in [(1, 5, 5, 0), (6, 9, 3, 400), (11, 20, 5, 1_000)] {
            assert_eq!(line.next(&let_in(from, to, count, at)), None);
        }
    }

    #[test]
    fn order_and_rate_are_faults() {
        let mut back = line();
        assert_eq!(back.next(&let_in(6, 9, 3, 0)), None);
        assert!(back.next(&let_in(1, 5, 5, 5_000)).is_some());
        let mut fast = line();
        assert_eq!(fast.next(&let_in(1, 5, 5, 0)), None);
        assert!(fast.next(&let_in(6, 9, 4, 999)).is_some());
    }

    #[test]
    fn settings_of_before_have_no_limit_that_is_known() {
        let mut line = QueueReplay { since: 10_000, ..line() };
        assert_eq!(line.next(&let_in(1, 100, 100, 0)), None);
        assert!(line.next(&let_in(50, 60, 1, 1)).is_some(), "but an order");
        assert_eq!(line.next(&let_in(5, 9, 5, 10_000)), None, "another lottery deals other places");
        assert!(line.next(&let_in(10, 19, 9, 10_001)).is_some());
    }
}
