//! Latencies, measured from the moment at which a request was *due*, not from when it was sent.
//!
//! A generator that falls behind a stalled service sends late, and so leaves out the very requests
//! that had to wait (coordinated omission). Latencies from sending are kept as well: the difference
//! shows how much would be missing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

const MAX_LATENCY_US: u64 = 120_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RequestStep {
    Join,
    Poll,
    Hold,
    Charge,
    Pay,
    Wallet,
    Leave,
    Issue,
}

impl RequestStep {
    pub(super) fn name(self) -> &'static str {
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

/// Latencies of one step, in microseconds.
#[derive(Debug)]
pub(super) struct LatencySeries {
    pub(super) from_due: Histogram<u64>,
    pub(super) from_sent: Histogram<u64>,
    /// Unexpected responses by status; 0 is a broken connection.
    pub(super) failures: BTreeMap<u16, u64>,
}

impl Default for LatencySeries {
    fn default() -> Self {
        let empty = || {
            Histogram::new_with_max(MAX_LATENCY_US, 2)
                .unwrap_or_else(|_| unreachable!("the bounds are valid"))
        };
        Self { from_due: empty(), from_sent: empty(), failures: BTreeMap::new() }
    }
}

impl LatencySeries {
    pub(super) fn record(&mut self, due: Instant, sent: Instant, answered: Instant) {
        self.from_due.saturating_record(micros(answered - due));
        self.from_sent.saturating_record(micros(answered - sent));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // Cannot fail: all histograms have the same bounds.
        let _ = self.from_due.add(&other.from_due);
        let _ = self.from_sent.add(&other.from_sent);
        for (status, count) in &other.failures {
            *self.failures.entry(*status).or_default() += count;
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(MAX_LATENCY_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One connection, one request due per millisecond for ten seconds, and a service that answers
    /// in 100 µs but stalls for one second.
    fn stalled_series() -> LatencySeries {
        let start = Instant::now();
        let stall = start + 5_000 * MS..start + 6_000 * MS;
        let (mut series, mut free) = (LatencySeries::default(), start);
        for number in 0..10_000 {
            let due = start + number * MS;
            let sent = due.max(free);
            let served = if stall.contains(&sent) { stall.end } else { sent };
            free = served + MS / 10;
            series.record(due, sent, free);
        }
        series
    }

    #[test]
    fn stall_counts_for_all_requests_due_meanwhile() {
        let series = stalled_series();
        let p99 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.99);
        // A tenth of the requests was due during the stall and waited half a second on average.
        assert!(p99(&series.from_due) > 800_000, "{}", p99(&series.from_due));
        // Only one request was in flight during the stall.
        assert!(p99(&series.from_sent) < 200, "{}", p99(&series.from_sent));
    }

    #[test]
    fn merged_series_add_up() {
        let (mut sum, mut other) = (stalled_series(), stalled_series());
        let p99 = sum.from_due.value_at_quantile(0.99);
        other.failures.insert(503, 2);
        sum.merge(&other);
        assert_eq!((sum.from_due.len(), sum.from_sent.len()), (20_000, 20_000));
        assert_eq!(sum.from_due.value_at_quantile(0.99), p99);
        assert_eq!(sum.failures, BTreeMap::from([(503, 2)]));
    }
}
