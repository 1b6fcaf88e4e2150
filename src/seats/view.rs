//! What an instance remembers of seat maps, so that a crowd that looks at one costs Redis one read an interval.
//!
//! Only a crowd is answered from memory: the few who look at a quiet date always see it as it is. A map is remembered for as long as it is asked for, and is
//! never older than [`OLDEST`]. Nothing is decided by it; a hold is judged in Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::store::{SeatMapScope, UnavailableSeat};

/// A map older than this is read anew by the first who asks; the others see the one before meanwhile.
const FRESH: Duration = Duration::from_millis(100);
/// The oldest map that is shown.
const OLDEST: Duration = Duration::from_millis(200);
/// So many looks within two intervals are not a crowd.
const QUIET: u32 = 8;
/// A map that nobody has asked for is forgotten after so long.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// The seats that are not available.
type UnavailableSeats = Arc<Vec<UnavailableSeat>>;

/// The maps of all dates that are being looked at.
#[derive(Default)]
pub(super) struct SeatMapCache(Mutex<HashMap<SeatMapScope, CachedSeatMap>>);

struct CachedSeatMap {
    since: Instant,
    looks: u32,
    looks_before: u32,
    seen: Option<(Instant, UnavailableSeats)>,
    renewing: Option<Instant>,
}

impl SeatMapCache {
    /// The map, if this look may be answered from memory. Whoever gets none reads it from Redis and [keeps](Self::keep) it.
    pub(super) fn look(&self, hall: &SeatMapScope, now: Instant) -> Option<UnavailableSeats> {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let view = views.entry(hall.clone()).or_insert_with(|| CachedSeatMap::new(now));
        view.count(now);
        if view.looks + view.looks_before <= QUIET {
            return None;
        }
        let (at, map) = view.seen.as_ref()?;
        let age = now.saturating_duration_since(*at);
        let renewed_by_another =
            view.renewing.is_some_and(|since| now.saturating_duration_since(since) < FRESH);
        if age < FRESH || age < OLDEST && renewed_by_another {
            return Some(map.clone());
        }
        view.renewing = Some(now);
        None
    }

    /// Remembers a map that was asked of Redis at a moment.
    pub(super) fn keep(&self, hall: &SeatMapScope, asked_at: Instant, map: &UnavailableSeats) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get_mut(hall)
            && view.seen.as_ref().is_none_or(|(at, _)| *at < asked_at)
        {
            view.seen = Some((asked_at, map.clone()));
            view.renewing = None;
        }
        views.retain(|_, view| asked_at.saturating_duration_since(view.since) < FORGOTTEN);
    }
}

impl CachedSeatMap {
    fn new(now: Instant) -> Self {
        Self { since: now, looks: 0, looks_before: 0, seen: None, renewing: None }
    }

    fn count(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= FRESH {
            self.looks_before = if passed < FRESH * 2 { self.looks } else { 0 };
            (self.since, self.looks) = (now, 0);
        }
        self.looks = self.looks.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hall() -> SeatMapScope {
        SeatMapScope { queue: "q".parse().unwrap(), schedule: "s".parse().unwrap(), seats: 9 }
    }

    /// Looks for `millis` milliseconds with so many looks each; gives how often Redis was read and how old the oldest answer was.
    fn crowd(views: &SeatMapCache, start: Instant, millis: u64, looks: u32) -> (u32, Duration) {
        let (mut reads, mut oldest, mut made) = (0, Duration::ZERO, HashMap::new());
        for at in 0..millis {
            let now = start + Duration::from_millis(at);
            for _ in 0..looks {
                match views.look(&hall(), now) {
                    Some(map) => oldest = oldest.max(now - made[&Arc::as_ptr(&map)]),
                    None => {
                        let map = UnavailableSeats::default();
                        made.insert(Arc::as_ptr(&map), now);
                        views.keep(&hall(), now, &map);
                        std::mem::forget(map);
                        reads += 1;
                    }
                }
            }
        }
        (reads, oldest)
    }

    #[test]
    fn a_crowd_costs_a_read_an_interval() {
        let (reads, oldest) = crowd(&SeatMapCache::default(), Instant::now(), 1_000, 50);
        assert!(reads <= 10 + QUIET, "{reads}");
        assert!(oldest < OLDEST, "{oldest:?}");
    }

    #[test]
    fn a_few_always_see_it_as_it_is() {
        let (views, start) = (SeatMapCache::default(), Instant::now());
        for at in 0..20 {
            assert!(views.look(&hall(), start + Duration::from_millis(50 * at)).is_none());
        }
    }

    #[test]
    fn others_see_the_old_map_while_one_renews_it_but_not_for_ever() {
        let (views, start) = (SeatMapCache::default(), Instant::now());
        crowd(&views, start, 100, 20);
        let later = |millis| start + Duration::from_millis(millis);
        let mut looks = (0..20).map(|_| views.look(&hall(), later(199)).is_some());
        assert_eq!(looks.find(|seen| !seen), Some(false), "one renews");
        assert!(
            (0..20).all(|_| views.look(&hall(), later(199)).is_some()),
            "the others wait for none"
        );
        assert!(views.look(&hall(), later(400)).is_none());
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let (views, start) = (SeatMapCache::default(), Instant::now());
        crowd(&views, start, 100, 20);
        let other = SeatMapScope { schedule: "t".parse().unwrap(), ..hall() };
        let later = start + Duration::from_secs(10);
        views.look(&other, later);
        views.keep(&other, later, &UnavailableSeats::default());
        assert_eq!(views.0.lock().unwrap().len(), 1);
    }
}
