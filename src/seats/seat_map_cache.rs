//! A cache of seat maps in memory: under load, an instance reads each map once per interval.
//!
//! The cache answers only under load. With few requests, each of them reads Redis and gets the
//! current map. A cached map is never older than [`MAX_MAP_AGE`]. No decision depends on the cache:
//! holds are decided in Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::seat_statuses::SeatStatuses;
use super::store::SeatMapScope;
use super::{Error, SeatService, sql};
use crate::catalogue::ScheduledConcert;

/// The first request that meets an older map reads a new one. Other requests get the old one
/// meanwhile.
const MAP_REFRESH_AGE: Duration = Duration::from_millis(100);
const MAX_MAP_AGE: Duration = Duration::from_millis(200);
/// Up to this many requests in two intervals of [`MAP_REFRESH_AGE`] are not answered from the
/// cache.
const MAX_UNCACHED_REQUESTS: u32 = 8;
/// A map that is not requested for this time is removed.
const UNUSED_MAP_RETENTION: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct SeatMapCache(Mutex<HashMap<SeatMapScope, CachedSeatMap>>);

struct CachedSeatMap {
    /// The start of the current interval.
    interval_start: Instant,
    /// The requests in the current interval, and in the one before.
    requests: u32,
    previous_requests: u32,
    /// The map and when it was read.
    map: Option<(Instant, Arc<SeatStatuses>)>,
    /// When a request started to read a new map.
    refresh_started: Option<Instant>,
}

impl SeatMapCache {
    /// The map, if this request may be answered from the cache. Otherwise the caller reads the map
    /// from Redis and calls [`insert`](Self::insert).
    pub(super) fn get(&self, scope: &SeatMapScope, now: Instant) -> Option<Arc<SeatStatuses>> {
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = maps.entry(scope.clone()).or_insert_with(|| CachedSeatMap::new(now));
        cached.count_request(now);
        if cached.requests + cached.previous_requests <= MAX_UNCACHED_REQUESTS {
            return None;
        }
        let (at, map) = cached.map.as_ref()?;
        let age = now.saturating_duration_since(*at);
        let is_refreshing = cached
            .refresh_started
            .is_some_and(|since| now.saturating_duration_since(since) < MAP_REFRESH_AGE);
        if age < MAP_REFRESH_AGE || age < MAX_MAP_AGE && is_refreshing {
            return Some(map.clone());
        }
        cached.refresh_started = Some(now);
        None
    }

    /// Stores a map that was requested from Redis at `requested_at`.
    pub(super) fn insert(
        &self,
        scope: &SeatMapScope,
        requested_at: Instant,
        map: &Arc<SeatStatuses>,
    ) {
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = maps.get_mut(scope)
            && cached.map.as_ref().is_none_or(|(at, _)| *at < requested_at)
        {
            cached.map = Some((requested_at, map.clone()));
            cached.refresh_started = None;
        }
        maps.retain(|_, cached| {
            requested_at.saturating_duration_since(cached.interval_start) < UNUSED_MAP_RETENTION
        });
    }
}

impl CachedSeatMap {
    fn new(now: Instant) -> Self {
        Self {
            interval_start: now,
            requests: 0,
            previous_requests: 0,
            map: None,
            refresh_started: None,
        }
    }

    fn count_request(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.interval_start);
        if elapsed >= MAP_REFRESH_AGE {
            self.previous_requests = if elapsed < MAP_REFRESH_AGE * 2 { self.requests } else { 0 };
            (self.interval_start, self.requests) = (now, 0);
        }
        self.requests = self.requests.saturating_add(1);
    }
}

impl SeatService {
    /// The status of each seat of a schedule. Under load, the answer may be up to 200 ms old.
    pub(super) async fn seat_statuses(
        &self,
        scheduled: &ScheduledConcert,
    ) -> Result<Arc<SeatStatuses>, Error> {
        let schedule = scheduled.schedule();
        let scope = SeatMapScope {
            queue: scheduled.concert.queue.clone(),
            schedule: schedule.id.clone(),
            seats: schedule.seats(),
        };
        let now = Instant::now();
        if let Some(statuses) = self.seat_maps.get(&scope, now) {
            return Ok(statuses);
        }
        let statuses = if scheduled.concert.archived {
            let sold = sql::sold(&self.mysql, &scope.schedule).await?;
            Arc::new(SeatStatuses::of_sold(scope.seats, &sold))
        } else {
            self.map.submit(scope.clone(), ()).await?
        };
        self.seat_maps.insert(&scope, now, &statuses);
        Ok(statuses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> SeatMapScope {
        SeatMapScope { queue: "q".parse().unwrap(), schedule: "s".parse().unwrap(), seats: 9 }
    }

    /// Sends `per_ms` requests in each of `millis` milliseconds. Returns the number of reads of
    /// Redis and the age of the oldest answer.
    fn run_requests(
        cache: &SeatMapCache,
        start: Instant,
        millis: u64,
        per_ms: u32,
    ) -> (u32, Duration) {
        let (mut reads, mut oldest, mut read_at) = (0, Duration::ZERO, HashMap::new());
        for at in 0..millis {
            let now = start + Duration::from_millis(at);
            for _ in 0..per_ms {
                match cache.get(&scope(), now) {
                    Some(map) => oldest = oldest.max(now - read_at[&Arc::as_ptr(&map)]),
                    None => {
                        let map = Arc::<SeatStatuses>::default();
                        read_at.insert(Arc::as_ptr(&map), now);
                        cache.insert(&scope(), now, &map);
                        std::mem::forget(map);
                        reads += 1;
                    }
                }
            }
        }
        (reads, oldest)
    }

    #[test]
    fn many_requests_need_one_read_per_interval() {
        let (reads, oldest) = run_requests(&SeatMapCache::default(), Instant::now(), 1_000, 50);
        assert!(reads <= 10 + MAX_UNCACHED_REQUESTS, "{reads}");
        assert!(oldest < MAX_MAP_AGE, "{oldest:?}");
    }

    #[test]
    fn few_requests_always_read_redis() {
        let (cache, start) = (SeatMapCache::default(), Instant::now());
        for at in 0..20 {
            assert!(cache.get(&scope(), start + Duration::from_millis(50 * at)).is_none());
        }
    }

    #[test]
    fn old_map_is_returned_during_a_refresh_up_to_its_maximum_age() {
        let (cache, start) = (SeatMapCache::default(), Instant::now());
        run_requests(&cache, start, 100, 20);
        let later = |millis| start + Duration::from_millis(millis);
        let mut cached = (0..20).map(|_| cache.get(&scope(), later(199)).is_some());
        assert_eq!(cached.find(|cached| !cached), Some(false), "one request refreshes");
        assert!(
            (0..20).all(|_| cache.get(&scope(), later(199)).is_some()),
            "the others get the old map"
        );
        assert!(cache.get(&scope(), later(400)).is_none());
    }

    #[test]
    fn unused_map_is_removed() {
        let (cache, start) = (SeatMapCache::default(), Instant::now());
        run_requests(&cache, start, 100, 20);
        let other = SeatMapScope { schedule: "t".parse().unwrap(), ..scope() };
        let later = start + Duration::from_secs(10);
        cache.get(&other, later);
        cache.insert(&other, later, &Arc::<SeatStatuses>::default());
        assert_eq!(cache.0.lock().unwrap().len(), 1);
    }
}
