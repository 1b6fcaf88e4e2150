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
        let admitted_since = newest > settings_since(context, *partition, queue).await?;
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

/// Since when the current settings of the queue are in force, in milliseconds since 1970.
async fn settings_since(
    context: &AuditContext<'_>,
    partition: Partition,
    queue: &QueueId,
) -> Result<Option<i64>, StoreError> {
    let field = [Bytes::from_static(b"since")];
    let found = context.redis.hash_fields(partition, &format!("q:{queue}:bucket"), &field).await?;
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
}

/// Replays the promotions of one queue.
struct QueueReplay {
    since: i64,
    interval: i64,
    limit: i64,
    last: i64,
    /// The promotions of the last interval under the current settings: time and number of users.
    recent: VecDeque<(i64, i64)>,
    in_interval: i64,
}

impl QueueReplay {
    /// Checks the next promotion. Under earlier settings only the order is checked, because their
    /// limits are not stored.
    fn next(&mut self, promotion: &AuditedPromotion) -> Option<String> {
        let (from, to, count, at) = (
            promotion.from_score,
            promotion.to_score,
            i64::from(promotion.count),
            promotion.promoted_at.timestamp_millis(),
        );
        // New settings may assign other scores (another lottery), and so does a restore of the
        // queue.
        let same_settings = at >= self.since;
        if same_settings && self.recent.is_empty() {
            self.last = -1;
        }
        let wrong = (from <= self.last || to < from)
            .then(|| format!("{from}…{to} were admitted after {}", self.last));
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
        let (admitted, limit, interval) = (self.in_interval, self.limit, self.interval);
        wrong.or_else(|| {
            (admitted > limit)
                .then(|| format!("{admitted} within {interval} ms, but {limit} are allowed"))
        })
    }
}

/// Every promotion follows the one before in score order, and no interval exceeds the rate of the
/// current settings.
async fn check_promotions(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "promotions",
        "in score order, at most promote_per_interval in any interval since the settings last \
         changed",
    );
    let mut replays = BTreeMap::new();
    let settings: Vec<(String, u32, u32)> =
        sqlx::query_as("SELECT id, interval_ms, promote_per_interval FROM queues")
            .fetch_all(context.mysql)
            .await?;
    for (partition, queue) in context.reinspection.queues() {
        let Some((_, interval, limit)) = settings.iter().find(|(id, ..)| id == queue.as_str())
        else {
            continue;
        };
        let since = settings_since(context, partition, queue).await?.unwrap_or_default();
        let (interval, limit) = (i64::from(*interval), i64::from(*limit));
        let replay = QueueReplay {
            since,
            interval,
            limit,
            last: -1,
            recent: VecDeque::new(),
            in_interval: 0,
        };
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
            "SELECT n, idx, queue_id, from_score, to_score, count, promoted_at FROM promotions \
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

    fn replay() -> QueueReplay {
        QueueReplay {
            since: 0,
            interval: 1_000,
            limit: 8,
            last: -1,
            recent: VecDeque::new(),
            in_interval: 0,
        }
    }

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
        }
    }

    #[test]
    fn correct_queue_has_no_faults() {
        let mut replay = replay();
        for (from, to, count, at) in [(1, 5, 5, 0), (6, 9, 3, 400), (11, 20, 5, 1_000)] {
            assert_eq!(replay.next(&admitted(from, to, count, at)), None);
        }
    }

    #[test]
    fn wrong_order_and_rate_are_faults() {
        let mut back = replay();
        assert_eq!(back.next(&admitted(6, 9, 3, 0)), None);
        assert!(back.next(&admitted(1, 5, 5, 5_000)).is_some());
        let mut fast = replay();
        assert_eq!(fast.next(&admitted(1, 5, 5, 0)), None);
        assert!(fast.next(&admitted(6, 9, 4, 999)).is_some());
    }

    #[test]
    fn earlier_settings_are_checked_for_order_only() {
        let mut replay = QueueReplay { since: 10_000, ..replay() };
        assert_eq!(replay.next(&admitted(1, 100, 100, 0)), None);
        assert!(replay.next(&admitted(50, 60, 1, 1)).is_some(), "the order is still checked");
        assert_eq!(
            replay.next(&admitted(5, 9, 5, 10_000)),
            None,
            "another lottery assigns other scores"
        );
        assert!(replay.next(&admitted(10, 19, 9, 10_001)).is_some());
    }
}
