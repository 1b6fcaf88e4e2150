//! Unit tests of the forecast.

use super::age_bins::{AGE_BINS, age_bin, bin_start};
use super::input::{MAX_SAMPLED_VISITS, sampled_ranks};
use super::*;

const LIMITS: AdmissionLimits = AdmissionLimits {
    per_interval: 100,
    interval_ms: 1_000,
    max_active: 10,
    active_ms: 60_000,
    claim_ms: 20_000,
    sliding: false,
    visit_limit_ms: None,
};

fn input<'a>(
    limits: AdmissionLimits,
    waiting: u64,
    visits: &'a [VisitSample],
    turnover: &'a TurnoverCounts,
) -> ForecastInput<'a> {
    ForecastInput {
        limits,
        now_ms: 1_000_000,
        open: true,
        restoring_until_ms: 0,
        waiting,
        active: visits.len() as u64,
        recent_admissions: &[],
        visits,
        turnover,
    }
}

/// Ten visits whose deadlines are 5, 10, … 50 seconds away.
fn staggered() -> Vec<VisitSample> {
    let visit = |i: i64| {
        let base = 1_000_000 + i * 5_000;
        VisitSample { weight: 1.0, deadline_ms: base, start_ms: base - 60_000, base_ms: Some(base) }
    };
    (1..=10).map(visit).collect()
}

#[test]
fn age_bins_ascend_and_contain_their_ages() {
    for ms in (0..100_000_u64).step_by(10).chain((100_000..89_000_000).step_by(9_973)) {
        let bin = age_bin(ms);
        let age = ms as f64 / 1_000.0;
        assert!(bin_start(bin) <= age && age < bin_start(bin + 1), "{ms} is in {bin}");
        assert!(bin < AGE_BINS - 1);
    }
}

#[test]
fn a_queue_limited_by_its_rate_is_known_at_the_opening() {
    let turnover = TurnoverCounts::new(300.0);
    let limits = AdmissionLimits { per_interval: 20, max_active: 1_000, ..LIMITS };
    let forecast = AdmissionForecast::new(&input(limits, 200, &[], &turnover));
    let wait = forecast.wait_seconds(100).unwrap();
    assert!((3.0..6.0).contains(&wait), "{wait}");
}

#[test]
fn a_wait_is_unknown_until_a_slot_was_freed() {
    let visits = staggered();
    let mut turnover = TurnoverCounts::new(300.0);
    turnover.ended_when_filled = Some(0);
    let forecast = AdmissionForecast::new(&input(LIMITS, 20, &visits, &turnover));
    assert_eq!(forecast.estimated_wait_seconds(1), None);
    turnover.ended = 1;
    turnover.lapsed[age_bin(60_000)] = 1.0;
    let forecast = AdmissionForecast::new(&input(LIMITS, 20, &visits, &turnover));
    for position in 1..=10 {
        let wait = forecast.wait_seconds(position).unwrap();
        let real = position as f64 * 5.0;
        assert!((wait - real).abs() < 2.0, "position {position}: {wait} instead of {real}");
    }
}

#[test]
fn a_lowered_cap_adds_the_visits_above_it() {
    let visits = staggered();
    let mut turnover = TurnoverCounts::new(300.0);
    turnover.ended = 1;
    turnover.lapsed[age_bin(60_000)] = 1.0;
    let limits = AdmissionLimits { max_active: 5, ..LIMITS };
    let forecast = AdmissionForecast::new(&input(limits, 20, &visits, &turnover));
    let wait = forecast.wait_seconds(1).unwrap();
    assert!((wait - 30.0).abs() < 2.0, "{wait}");
}

#[test]
fn a_sliding_visit_without_a_limit_has_an_estimate() {
    let visits = staggered();
    let mut turnover = TurnoverCounts::new(300.0);
    turnover.ended = 9;
    turnover.early[age_bin(30_000)] = 4.0;
    turnover.lapsed[age_bin(60_000)] = 5.0;
    let limits = AdmissionLimits { sliding: true, ..LIMITS };
    let forecast = AdmissionForecast::new(&input(limits, 20, &visits, &turnover));
    let waits = [1, 5, 10, 20].map(|position| forecast.wait_seconds(position).unwrap());
    assert!(waits.is_sorted() && waits[0] > 0.0 && waits[3] < 300.0, "{waits:?}");
}

#[test]
fn a_closed_queue_has_no_estimate() {
    let turnover = TurnoverCounts::new(300.0);
    let closed = ForecastInput { open: false, ..input(LIMITS, 20, &[], &turnover) };
    assert_eq!(AdmissionForecast::new(&closed).wait_seconds(1), None);
}

#[test]
fn slow_bursts_are_stepped_through() {
    let turnover = TurnoverCounts::new(300.0);
    let limits =
        AdmissionLimits { per_interval: 50, interval_ms: 30_000, max_active: 10_000, ..LIMITS };
    let burst = [(990_000, 50)];
    let input = ForecastInput { recent_admissions: &burst, ..input(limits, 500, &[], &turnover) };
    let forecast = AdmissionForecast::new(&input);
    for (position, real) in [(1, 20.0), (50, 20.0), (51, 50.0), (120, 80.0)] {
        let wait = forecast.wait_seconds(position).unwrap();
        assert!((wait - real).abs() < 2.0, "position {position}: {wait} instead of {real}");
    }
}

#[test]
fn turnover_is_read_with_the_weight_of_now() {
    let field = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let fields = [
        ("t0", "400000"),
        ("half_life", "600"),
        ("s0", "2"),
        ("e17", "4"),
        ("l249", "6.5"),
        ("x3", "1e-3"),
        ("n", "8"),
        ("ended", "12"),
        ("filled", "3"),
    ]
    .map(field);
    let turnover = TurnoverCounts::from_fields(&fields, 1_000_000).unwrap();
    assert_eq!((turnover.shown[0], turnover.early[17], turnover.lapsed[249]), (1.0, 2.0, 3.25));
    assert_eq!((turnover.extended[3], turnover.no_shows), (5e-4, 4.0));
    assert_eq!((turnover.ended, turnover.ended_when_filled), (12, Some(3)));
    assert_eq!(TurnoverCounts::from_fields(&[], 1_000_000).unwrap(), TurnoverCounts::new(300.0));
    for wrong in [("s250", "1"), ("q1", "1"), ("n", "x"), ("é", "1"), ("", "1")] {
        assert_eq!(TurnoverCounts::from_fields(&[field(wrong)], 0), None, "{wrong:?}");
    }
}

/// `tests/it/queue/estimate.rs` compares the script with the same pairs.
#[test]
fn age_bins_are_those_of_the_script() {
    for (ms, bin) in [
        (0, 0),
        (249, 0),
        (3_999, 15),
        (4_000, 16),
        (7_999, 31),
        (8_000, 32),
        (60_000, 78),
        (90_000_000, 245),
    ] {
        assert_eq!(age_bin(ms), bin, "{ms}");
    }
}

#[test]
fn a_large_queue_is_sampled_evenly() {
    let ranks = sampled_ranks(1_000_000);
    assert_eq!(ranks.len(), MAX_SAMPLED_VISITS);
    assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]) && ranks[159] < 1_000_000);
    let weights = (0..160).map(|i| sample_weight(i, 160, 1_000_000));
    assert!((weights.sum::<f64>() - 1e6).abs() < 1e-3);
}

#[test]
fn polls_follow_the_wait_within_the_limits() {
    let minute = Duration::from_secs(60);
    let after = |wait, jitter| poll_after(wait, false, minute, None, jitter);
    assert_eq!(after(Some(0), 0.0), Duration::from_secs(1));
    assert_eq!(after(Some(50), 0.0), Duration::from_secs(5));
    assert_eq!(after(Some(100_000), 0.0), Duration::from_secs(10));
    assert_eq!(after(None, 0.0), Duration::from_secs(5));
    let claim = Duration::from_secs(4);
    let limited = |claim, abandon| poll_after(Some(1_000), false, claim, abandon, 1.0);
    assert!(limited(claim, None) <= claim / 2);
    assert!(limited(minute, Some(claim)) <= claim / 2);
}
