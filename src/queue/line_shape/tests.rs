//! Random lines, with clients who read documents of random instances and ages.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::super::line_document::LineDocument;
use super::super::rank_markers::marker_scores;
use super::super::settings::QueueSettings;
use super::super::snapshot::tests::snapshot_with;
use super::*;

/// Client histories without `USHER_TEST_LINE_HISTORIES`. `make soak` runs a million.
const DEFAULT_HISTORIES: u64 = 20_000;
const INSTANCES: usize = 3;
const STEPS: usize = 60;
/// Clients who read a document in one step.
const READERS: usize = 60;
/// A client may read any of the last versions, from a cache.
const CACHED_VERSIONS: usize = 6;

/// The position of a score, as `docs/line.md` defines it.
fn position(front: Option<u64>, marks: &[(u64, u64)], score: u64) -> Option<u64> {
    let front = front.filter(|front| *front <= score)?;
    let below = marks.iter().filter(|(mark, _)| *mark <= score).max();
    let above = marks.iter().filter(|(mark, _)| *mark > score).min();
    let from_below = below.map(|(mark, ahead)| ahead + score - mark + 1);
    let from_above = above.map(|(_, ahead)| *ahead);
    [Some(score - front + 1), from_below, from_above].into_iter().flatten().min()
}

#[test]
fn position_agrees_with_the_vectors_of_the_clients() {
    let text = include_str!("../../../tests/vectors/line.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    for case in vectors["cases"].as_array().unwrap() {
        let lanes = case["document"]["lanes"].as_array().unwrap();
        let own = lanes.iter().find(|lane| lane["name"] == case["lane"]);
        let lane = own.or(lanes.last()).unwrap();
        let marks: Vec<(u64, u64)> = serde_json::from_value(lane["marks"].clone()).unwrap();
        let score = case["score"].as_u64().unwrap();
        let found = position(lane["front"].as_u64(), &marks, score);
        assert_eq!(found, case["position"].as_u64(), "{}", case["name"]);
    }
}

/// What one instance read of the line, as `lua/queue/publish_line.lua` compares it.
#[derive(Clone)]
struct SimulatedReading {
    taken_at: u64,
    markers_at: u64,
    shape: LineShape,
}

/// A line with instances that publish documents of it.
struct SimulatedLine {
    random: StdRng,
    now: u64,
    /// Waiting scores in ascending order.
    waiting: Vec<u64>,
    newest: u64,
    /// For each instance the front, the newest score and the time of its last reading.
    bounds: [(u64, u64, u64); INSTANCES],
    /// Readings that are not published yet.
    pending: Vec<SimulatedReading>,
    published: Vec<SimulatedReading>,
}

impl SimulatedLine {
    /// Users who waited before a draw, the entrants of the draw, then arrivals.
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let earlier = if random.random_bool(0.5) { random.random_range(0..400) } else { 0 };
        let entrants = if random.random_bool(0.5) { random.random_range(0..400) } else { 0 };
        let mut waiting: Vec<u64> = (0..earlier).map(|nth| SCORES_PER_SEGMENT + nth).collect();
        for _ in 0..entrants {
            waiting.push(2 * SCORES_PER_SEGMENT + random.random_range(0..SCORES_PER_SEGMENT));
        }
        waiting.sort_unstable();
        waiting.dedup();
        let newest = 3 * SCORES_PER_SEGMENT - 1 + earlier;
        let bounds = [(waiting.first().copied().unwrap_or(newest + 1), newest, 0); INSTANCES];
        let (pending, published) = (Vec::new(), Vec::new());
        Self { random, now: 0, waiting, newest, bounds, pending, published }
    }

    fn below(&self, score: u64) -> u64 {
        self.waiting.partition_point(|user| *user < score) as u64
    }

    fn step(&mut self) {
        self.now += 1;
        let waiting = self.waiting.len();
        match self.random.random_range(0..7) {
            0..2 => {
                let most = [3, 40, 3_000][self.random.random_range(0..3)];
                for _ in 0..self.random.random_range(1..=most) {
                    self.newest += 1;
                    self.waiting.push(self.newest);
                }
            }
            // Consecutive users leave, so that the gaps become wide.
            2..5 if waiting > 0 => {
                let from = self.random.random_range(0..waiting);
                let to = waiting.min(from + self.random.random_range(1..=waiting.div_ceil(4)));
                self.waiting.drain(from..to);
            }
            _ => drop(self.waiting.drain(..waiting.min(self.random.random_range(0..200)))),
        }
        for instance in 0..INSTANCES {
            if self.random.random_bool(0.6) {
                self.read(instance);
            }
        }
        while self.random.random_bool(0.7) && !self.pending.is_empty() {
            let nth = self.random.random_range(0..self.pending.len());
            let reading = self.pending.swap_remove(nth);
            self.publish(reading);
        }
    }

    /// An instance reads the line at the markers that follow from its previous reading.
    fn read(&mut self, instance: usize) {
        let (front, newest, markers_at) = self.bounds[instance];
        let markers: Vec<(u64, u64)> = marker_scores(front, newest)
            .into_iter()
            .map(|score| (score, self.below(score)))
            .collect();
        let front = self.waiting.first().copied();
        let shape = LineShape { front, marks: front.map_or_else(Vec::new, |_| marks(&markers)) };
        self.pending.push(SimulatedReading { taken_at: self.now, markers_at, shape });
        self.bounds[instance] = (front.unwrap_or(self.newest + 1), self.newest, self.now);
    }

    fn publish(&mut self, reading: SimulatedReading) {
        let is_newer = self.published.last().is_none_or(|last| {
            reading.taken_at > last.taken_at && reading.markers_at >= last.markers_at
        });
        if is_newer {
            self.published.push(reading);
        }
    }
}

/// Returns how many clients read a position.
fn check_clients(seed: u64) -> u64 {
    let mut line = SimulatedLine::new(seed);
    // By score: the newest version seen, and the last position.
    let mut clients: HashMap<u64, (usize, u64)> = HashMap::new();
    for _ in 0..STEPS {
        line.step();
        if line.waiting.is_empty() || line.published.is_empty() {
            continue;
        }
        for _ in 0..READERS {
            let rank = line.random.random_range(0..line.waiting.len());
            let score = line.waiting[rank];
            let versions = line.published.len();
            let version =
                line.random.random_range(versions.saturating_sub(CACHED_VERSIONS)..versions);
            let before = clients.get(&score).copied();
            if before.is_some_and(|(seen, _)| version < seen) {
                continue;
            }
            let shape = &line.published[version].shape;
            let Some(position) = position(shape.front, &shape.marks, score) else { continue };
            assert!(
                position > rank as u64,
                "seed {seed}: position {position} of {score} is below the true {}",
                rank + 1
            );
            if let Some((_, before)) = before {
                assert!(
                    position <= before,
                    "seed {seed}: {score} rose from {before} to {position}"
                );
            }
            clients.insert(score, (version, position));
        }
    }
    clients.len() as u64
}

#[test]
fn positions_of_random_clients_are_never_optimistic_and_never_rise() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("USHER_TEST_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    let histories: u64 = number("USHER_TEST_LINE_HISTORIES").unwrap_or(DEFAULT_HISTORIES);
    println!("USHER_TEST_SEED={first}");
    let (mut seed, mut checked) = (first, 0);
    while checked < histories {
        checked += check_clients(seed);
        seed += 1;
    }
}

/// A snapshot of a line in which one of four arrivals has left.
fn large_snapshot(front: u64, newest: u64, waiting: u64, drawn: u64) -> Snapshot {
    let (mut below, mut rank_markers, mut before) = (0, Vec::new(), front);
    for score in marker_scores(front, newest) {
        let scores = u128::from(score.saturating_sub(before));
        let users = match is_drawn_score(before) {
            true => scores * u128::from(drawn) / u128::from(SCORES_PER_SEGMENT),
            false => scores * 3 / 4,
        };
        below = waiting.min(below + u64::try_from(users).unwrap());
        rank_markers.push((score, below));
        before = score;
    }
    snapshot_with(Some(front), newest, waiting, rank_markers)
}

#[test]
fn document_of_ten_million_users_has_at_most_8_kib() {
    const MILLION: u64 = 1_000_000;
    let segment = |nth: u64| nth * SCORES_PER_SEGMENT;
    let queue = "a-queue-with-a-rather-long-name".parse().unwrap();
    for (front, newest, drawn) in [
        (segment(1), segment(1) + 13 * MILLION, 0),
        (segment(1) + 77_777, segment(1) + 14 * MILLION, 0),
        (segment(2) + 5, segment(3), 10 * MILLION),
        (segment(2) + (1 << 38), segment(3) + 7 * MILLION, 5 * MILLION),
        (segment(1) + 9, segment(3) + 7 * MILLION, 5 * MILLION),
        (segment(1) + 9, segment(9) + 7 * MILLION, 5 * MILLION),
        (segment(8_000), segment(8_005) + 7 * MILLION, 5 * MILLION),
    ] {
        let snapshot = large_snapshot(front, newest, 10 * MILLION, drawn);
        let json = LineDocument::new(&queue, &QueueSettings::default(), &snapshot).to_json();
        println!("{} bytes from {front} to {newest}", json.len());
        // Version, time and rate take some bytes more.
        assert!(json.len() <= 8_192 - 64, "{} bytes from {front} to {newest}", json.len());
    }
}

#[test]
fn line_without_final_places_has_no_front() {
    let markers = vec![(segment_of_draw(1), 0), (segment_of_draw(1) + (1 << 39), 3)];
    let mut snapshot =
        snapshot_with(Some(segment_of_draw(1) + 7), segment_of_draw(1) - 1, 5, markers);
    assert!(LineShape::of(&snapshot).front.is_some());
    snapshot.state.before_opening = true;
    assert_eq!(LineShape::of(&snapshot), LineShape::default(), "places of a draw are not final");
    snapshot.state.before_opening = false;
    snapshot.state.restoring = true;
    assert_eq!(LineShape::of(&snapshot), LineShape::default());
    let arrivals = vec![(SCORES_PER_SEGMENT, 0), (SCORES_PER_SEGMENT + 5, 5)];
    let mut snapshot =
        snapshot_with(Some(SCORES_PER_SEGMENT), SCORES_PER_SEGMENT + 4, 5, arrivals.clone());
    snapshot.state.before_opening = true;
    assert_eq!(LineShape::of(&snapshot).marks, arrivals, "arrivals have final places");
    snapshot.state.lottery = true;
    assert_eq!(LineShape::of(&snapshot), LineShape::default());
}

fn segment_of_draw(draw: u64) -> u64 {
    2 * draw * SCORES_PER_SEGMENT
}
