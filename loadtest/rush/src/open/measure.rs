//! Latencies, counted from the moment at which a request was *due*, not from that at which it was sent.
//!
//! A generator that falls behind because the service stalls would otherwise leave out just the requests that had to wait (coordinated
//! omission). What it would have said then is kept beside, as `sent`, because the difference shows how much was left out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies are kept in microseconds up to two minutes, with two significant digits.
const LONGEST_US: u64 = 120_000_000;

/// What a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Join,
    Poll,
    Hold,
    Charge,
    Pay,
    Wallet,
    Leave,
    Issue,
}

impl Step {
    /// As the report says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Poll => "poll",
            Self::Hold => "hold",
            Self::Charge => "charge",
            Self::Pay => "pay",
            Self::Wallet => "wallet",
            Self::Leave => "leave",
            Self::Issue => "issue",
        }
    }
}

/// Values and how often each was seen: a histogram on its way from one process to another.
type Counts = Vec<(u64, u64)>;

/// The latencies of one step.
#[derive(Debug)]
pub(crate) struct Series {
    /// From the moment a request was due, by the second of that moment.
    seconds: Vec<Histogram<u64>>,
    /// From the moment a request was sent.
    sent: Histogram<u64>,
    /// Answers that nobody should get, by status; 0 is a broken connection.
    pub(crate) failures: BTreeMap<u16, u64>,
}

/// A [`Series`] as text.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Packed {
    seconds: Vec<Counts>,
    sent: Counts,
    failures: BTreeMap<u16, u64>,
}

impl Default for Series {
    fn default() -> Self {
        Self { seconds: Vec::new(), sent: empty(), failures: BTreeMap::new() }
    }
}

impl Series {
    /// Notes an answer to a request of a run that began at `start`.
    pub(crate) fn record(&mut self, start: Instant, due: Instant, sent: Instant, answered: Instant) {
        let second = due.saturating_duration_since(start).as_secs();
        self.second(usize::try_from(second).unwrap_or(0)).saturating_record(us(answered - due));
        self.sent.saturating_record(us(answered - sent));
    }

    fn second(&mut self, second: usize) -> &mut Histogram<u64> {
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, empty);
        }
        &mut self.seconds[second]
    }

    /// All latencies, from when the requests were due.
    pub(crate) fn due(&self) -> Histogram<u64> {
        let mut all = empty();
        for second in &self.seconds {
            // Both have the same bounds.
            let _ = all.add(second);
        }
        all
    }

    /// All latencies, from when the requests were sent.
    pub(crate) fn sent(&self) -> &Histogram<u64> {
        &self.sent
    }

    /// A quantile of each second, in milliseconds; none where nothing was due.
    pub(crate) fn over_time(&self, quantile: f64) -> Vec<(f64, f64)> {
        let told = self.seconds.iter().enumerate().filter(|(_, second)| !second.is_empty());
        told.map(|(at, second)| (at as f64 + 0.5, second.value_at_quantile(quantile) as f64 / 1e3)).collect()
    }

    /// As text for another process.
    pub(crate) fn pack(&self) -> Packed {
        let seconds = self.seconds.iter().map(counts).collect();
        Packed { seconds, sent: counts(&self.sent), failures: self.failures.clone() }
    }

    /// Takes over what another process has measured.
    pub(crate) fn add(&mut self, packed: &Packed) {
        for (at, counts) in packed.seconds.iter().enumerate() {
            pour(counts, self.second(at));
        }
        pour(&packed.sent, &mut self.sent);
        for (status, count) in &packed.failures {
            *self.failures.entry(*status).or_default() += count;
        }
    }
}

fn empty() -> Histogram<u64> {
    // The bounds are constant and sound.
    Histogram::new_with_max(LONGEST_US, 2).unwrap_or_else(|_| unreachable!("sound bounds"))
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US)
}

fn counts(histogram: &Histogram<u64>) -> Counts {
    histogram
        .iter_recorded()
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect()
}

fn pour(counts: &Counts, into: &mut Histogram<u64>) {
    for (value, count) in counts {
        // Values beyond the bounds were cut off when they were recorded.
        let _ = into.record_n((*value).min(LONGEST_US), *count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One connection, a request due each millisecond for ten seconds, a service that answers in 100 µs but stands still for one second.
    fn stalled() -> Series {
        let start = Instant::now();
        let stall = start + 5_000 * MS..start + 6_000 * MS;
        let (mut series, mut free) = (Series::default(), start);
        for n in 0..10_000 {
            let due = start + n * MS;
            let sent = due.max(free);
            let served = if stall.contains(&sent) { stall.end } else { sent };
            free = served + MS / 10;
            series.record(start, due, sent, free);
        }
        series
    }

    #[test]
    fn a_stall_is_felt_by_all_who_were_due_meanwhile() {
        let series = stalled();
        let p99 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.99);
        // A tenth of the requests was due in the stall and waited half a second on average.
        assert!(p99(&series.due()) > 800_000, "{}", p99(&series.due()));
        // Counted from their sending, nearly all were quick: one alone was under way in the stall.
        assert!(p99(series.sent()) < 200, "{}", p99(series.sent()));
        let worst: Vec<_> = series.over_time(1.0).into_iter().filter(|(_, ms)| *ms > 500.0).collect();
        assert_eq!(worst.len(), 1, "one second of ten: {worst:?}");
    }

    #[test]
    fn what_two_processes_measured_adds_up() {
        let (one, mut sum) = (stalled(), Series::default());
        let mut packed = one.pack();
        packed.failures.insert(503, 2);
        let text = serde_json::to_string(&packed).unwrap();
        for _ in 0..2 {
            sum.add(&serde_json::from_str(&text).unwrap());
        }
        assert_eq!((sum.due().len(), sum.sent().len()), (20_000, 20_000));
        assert_eq!(sum.due().value_at_quantile(0.99), one.due().value_at_quantile(0.99));
        assert_eq!(sum.failures, BTreeMap::from([(503, 4)]));
    }
}
