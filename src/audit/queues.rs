//! Queues: no user both waits and is active, no more active users than allowed, admissions in order
//! and within the rate.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{AuditContext, CheckTally};
use crate::ids::QueueId;
use crate::partition::Partition;
use crate::store_error::StoreError;

pub(super) async fn check(context: &AuditContext<'_>) -> Result<Vec<CheckTally>, StoreError> {
    let (memberships, last) = (check_memberships(context).await?, check_promotions(context).await?);
    let mut capacity = CheckTally::new("capacity", "no more active users than max_active");
    let queues: Vec<_> = context
        .reinspection
        .queues()
        .map(|(partition, queue)| (partition, queue.clone()))
        .collect();
    context
        .inspect(&mut capacity, queues, &|chunk: Vec<(Partition, QueueId)>| async move {
            check_capacity(context, &chunk).await
        })
        .await?;
    Ok(vec![memberships, capacity, last])
}

/// No waiting user has an active slot, and every active slot has a record.
async fn check_memberships(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "places",
        "no user both waits and is active; every active slot has a record",
    );
    for (partition, queue) in context.reinspection.queues() {
        for zset in ["waiting", "active"] {
            let mut from = None;
            loop {
                let page =
                    context.redis.scan_zset(partition, &format!("q:{queue}:{zset}"), from).await?;
                let users: Vec<Bytes> = page.pairs.into_iter().map(|(user, _)| user).collect();
                tally.count_redis(users.len() as u64);
                let inspect = |chunk: Vec<Bytes>| async move {
                    inspect_memberships(context, partition, queue, &chunk).await
                };
                context.inspect(&mut tally, users, &inspect).await?;
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
        }
    }
    Ok(tally)
}

async fn inspect_memberships(
    context: &AuditContext<'_>,
    partition: Partition,
    queue: &QueueId,
    users: &[Bytes],
) -> Result<Vec<(Bytes, String)>, StoreError> {
    let key = |name: &str| format!("q:{queue}:{name}");
    let now = context.redis.clock(partition).await?;
    let waiting = context.redis.zset_scores(partition, &key("waiting"), users).await?;
    let active = context.redis.zset_scores(partition, &key("active"), users).await?;
    let records = context.redis.hash_fields(partition, &key("admitted"), users).await?;
    let mut faults = Vec::new();
    for (((user, waits), deadline), record) in users.iter().zip(waiting).zip(active).zip(records) {
        let runs = deadline.as_ref().is_some_and(|deadline| number(deadline) > now);
        let name =
            uuid::Uuid::from_slice(user).map_or_else(|_| format!("{user:?}"), |id| id.to_string());
        if waits.is_some() && runs {
            faults.push((user.clone(), format!("{name} both waits and is active in {queue}")));
        }
        if runs && record.is_none() {
            faults.push((
                user.clone(),
                format!("{name} has an active slot in {queue} without a record"),
            ));
        }
    }
    Ok(faults)
}

/// No user is admitted above `max_active`. When the limit was lowered below the number of active
/// users, that is no fault as long as no user was admitted since.
async fn check_capacity(
    context: &AuditContext<'_>,
    queues: &[(Partition, QueueId)],
) -> Result<Vec<((Partition, QueueId), String)>, StoreError> {
    let mut faults = Vec::new();
    for (partition, queue) in queues {
        let now = context.redis.clock(*partition).await?;
        let (limit, newest): (u32, Option<DateTime<Utc>>) = sqlx::query_as(
            "SELECT q.max_active, (SELECT MAX(p.promoted_at) FROM promotions p WHERE p.queue_id = \
             q.id) FROM queues q WHERE q.id = ?",
        )
        .bind(queue.as_str())
        .fetch_one(context.mysql)
        .await?;
        let active =
            context.redis.count_above(*partition, &format!("q:{queue}:active"), now).await?;
        let newest = newest.map(|at| at.timestamp_millis());
        let admitted_since = newest > capacity_since(context, *partition, queue).await?;
        if active > u64::from(limit) && admitted_since {
            let key = (*partition, queue.clone());
            faults.push((
                key,
                format!("{active} users are active in {queue}, but max_active is {limit}"),
            ));
        }
    }
    Ok(faults)
}

/// Since when the current `max_active` is in force, in milliseconds since 1970.
async fn capacity_since(
    context: &AuditContext<'_>,
    partition: Partition,
    queue: &QueueId,
) -> Result<Option<i64>, StoreError> {
    let (key, field) = (format!("q:{queue}:settings"), [Bytes::from_static(b"capacity_since")]);
    let found = context.redis.hash_fields(partition, &key, &field).await?;
    Ok(found.into_iter().next().flatten().map(|at| number(&at)))
}

/// One row of `promotions`: users who were admitted together.
#[derive(sqlx::FromRow)]
struct AuditedPromotion {
    n: u64,
    idx: u16,
    queue_id: String,
    from_score: i64,
    to_score: i64,
    count: u32,
    promoted_at: DateTime<Utc>,
    limit: u32,
    interval: u32,
}

/// Replays the promotions of one queue.
#[derive(Default)]
struct QueueReplay {
    /// When the partition was restored after a loss of Redis, oldest first. A restore assigns
    /// places anew, so users who were admitted shortly before the loss may be admitted again.
    losses: VecDeque<i64>,
    last: Option<i64>,
    /// The promotions of the last interval: time and number of users.
    recent: VecDeque<(i64, i64)>,
    in_interval: i64,
}

impl QueueReplay {
    /// Checks the next promotion by the rate that was in force when it was made.
    fn next(&mut self, promotion: &AuditedPromotion) -> Option<String> {
        let (from, to, count, at) = (
            promotion.from_score,
            promotion.to_score,
            i64::from(promotion.count),
            promotion.promoted_at.timestamp_millis(),
        );
        while self.losses.front().is_some_and(|lost| *lost <= at) {
            self.losses.pop_front();
            self.last = None;
        }
        let last = self.last.replace(to);
        let is_wrong = to < from || last.is_some_and(|last| from <= last);
        let wrong = is_wrong
            .then(|| format!("{from}…{to} were admitted after {}", last.unwrap_or_default()));
        // Redis' clock went back: the promotions before and after that have no common time.
        if self.recent.back().is_some_and(|(before, _)| at < *before) {
            self.recent.clear();
            self.in_interval = 0;
        }
        self.recent.push_back((at, count));
        self.in_interval += count;
        let (limit, interval) = (i64::from(promotion.limit), i64::from(promotion.interval));
        while let Some((_, gone)) =
            self.recent.front().copied().filter(|(old, _)| old + interval <= at)
        {
            self.recent.pop_front();
            self.in_interval -= gone;
        }
        let admitted = self.in_interval;
        wrong.or_else(|| {
            (admitted > limit)
                .then(|| format!("{admitted} within {interval} ms, but {limit} are allowed"))
        })
    }
}

/// Every promotion follows the one before in score order, and no interval exceeds the rate that was
/// in force.
async fn check_promotions(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "promotions",
        "in score order, at most promote_per_interval in any interval, by the settings of the time",
    );
    let losses: Vec<(u16, DateTime<Utc>)> = sqlx::query_as(
        "SELECT partition_id, began_at FROM recoveries WHERE laid_at IS NOT NULL ORDER BY began_at",
    )
    .fetch_all(context.mysql)
    .await?;
    let mut replays = BTreeMap::new();
    for (partition, queue) in context.reinspection.queues() {
        let own = losses.iter().filter(|(restored, _)| *restored == partition.get());
        let losses = own.map(|(_, at)| at.timestamp_millis()).collect();
        let replay = QueueReplay { losses, ..QueueReplay::default() };
        replays.insert(queue.as_str().to_owned(), replay);
    }
    // Outbox numbers continue when the number of partitions changes, so the promotions of a queue
    // are ordered by number across all partitions that it was in. The heap merges the partitions by
    // number.
    let last_partition: Option<u16> =
        sqlx::query_scalar("SELECT MAX(partition_id) FROM promotions")
            .fetch_one(context.mysql)
            .await?;
    let mut pagers: Vec<PromotionPager> =
        last_partition.map_or(0..0, |last| 0..last + 1).map(PromotionPager::new).collect();
    let rows = (MAX_BUFFERED_PROMOTIONS / pagers.len().max(1)).clamp(20, 1000);
    let mut next = BinaryHeap::new();
    for (at, pager) in pagers.iter_mut().enumerate() {
        pager.fill(context, &mut tally, rows).await?;
        next.extend(pager.page.front().map(|it| Reverse((it.n, it.idx, at))));
    }
    while let Some(Reverse((.., at))) = next.pop() {
        let pager = &mut pagers[at];
        let Some(it) = pager.page.pop_front() else { continue };
        let wrong = replays.get_mut(&it.queue_id).and_then(|replay| replay.next(&it));
        tally.add_faults(
            wrong.into_iter().map(|wrong| format!("{}: {wrong}", it.queue_id)).collect(),
        );
        if pager.page.is_empty() {
            pager.fill(context, &mut tally, rows).await?;
        }
        next.extend(pager.page.front().map(|it| Reverse((it.n, it.idx, at))));
    }
    Ok(tally)
}

/// About how many promotions are buffered for all partitions together.
const MAX_BUFFERED_PROMOTIONS: usize = 64_000;

/// Reads the promotions of one partition in order, one page at a time.
struct PromotionPager {
    partition: u16,
    last: (u64, u16),
    page: VecDeque<AuditedPromotion>,
}

impl PromotionPager {
    fn new(partition: u16) -> Self {
        Self { partition, last: (0, 0), page: VecDeque::new() }
    }

    async fn fill(
        &mut self,
        context: &AuditContext<'_>,
        tally: &mut CheckTally,
        rows: usize,
    ) -> Result<(), StoreError> {
        let (n, idx) = self.last;
        let page: Vec<AuditedPromotion> = sqlx::query_as(
            "SELECT n, idx, queue_id, from_score, to_score, count, promoted_at, \
               COALESCE(rate_limit, q.promote_per_interval) AS `limit`, \
               COALESCE(rate_interval_ms, q.interval_ms) AS `interval` \
             FROM promotions JOIN queues q ON q.id = queue_id \
             WHERE partition_id = ? AND (n > ? OR n = ? AND idx > ?) ORDER BY n, idx LIMIT ?",
        )
        .bind(self.partition)
        .bind(n)
        .bind(n)
        .bind(idx)
        .bind(rows as u64)
        .fetch_all(context.mysql)
        .await?;
        context.record_progress(tally.name, page.len());
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

    fn admitted(from_score: i64, to_score: i64, count: u32, at: i64) -> AuditedPromotion {
        let promoted_at = DateTime::from_timestamp_millis(at).unwrap();
        AuditedPromotion {
            n: 0,
            idx: 0,
            queue_id: String::new(),
            from_score,
            to_score,
            count,
            promoted_at,
            limit: 8,
            interval: 1_000,
        }
    }

    #[test]
    fn correct_queue_has_no_faults() {
        let mut replay = QueueReplay::default();
        for (from, to, count, at) in [(1, 5, 5, 0), (6, 9, 3, 400), (11, 20, 5, 1_000)] {
            assert_eq!(replay.next(&admitted(from, to, count, at)), None);
        }
    }

    #[test]
    fn wrong_order_and_rate_are_faults() {
        let mut back = QueueReplay::default();
        assert_eq!(back.next(&admitted(6, 9, 3, 0)), None);
        assert!(back.next(&admitted(1, 5, 5, 5_000)).is_some());
        let mut fast = QueueReplay::default();
        assert_eq!(fast.next(&admitted(1, 5, 5, 0)), None);
        assert!(fast.next(&admitted(6, 9, 4, 999)).is_some());
    }

    #[test]
    fn rate_is_checked_only_between_two_steps_of_the_clock() {
        let mut replay = QueueReplay::default();
        assert_eq!(replay.next(&admitted(1, 8, 8, 60_000)), None);
        assert_eq!(replay.next(&admitted(9, 16, 8, 59_500)), None);
        assert!(replay.next(&admitted(17, 17, 1, 59_600)).is_some());
    }

    #[test]
    fn promotions_are_judged_by_the_rate_of_their_time() {
        let mut replay = QueueReplay::default();
        let fast = AuditedPromotion { limit: 100, ..admitted(1, 100, 100, 0) };
        assert_eq!(replay.next(&fast), None);
        assert_eq!(replay.next(&admitted(101, 108, 8, 1_000)), None);
        assert!(replay.next(&admitted(109, 117, 9, 2_000)).is_some());
    }

    #[test]
    fn restored_places_may_be_admitted_again() {
        let mut replay = QueueReplay { losses: [5_000].into(), ..QueueReplay::default() };
        assert_eq!(replay.next(&admitted(6, 9, 3, 0)), None);
        assert_eq!(replay.next(&admitted(4, 5, 2, 5_000)), None, "after the restore");
        assert!(replay.next(&admitted(1, 3, 3, 9_000)).is_some());
    }
}
