//! A closed loop: so many connections, each of which sends its next request as soon as it has its answer.
//!
//! It finds the throughput that the machine allows, and the latency at that throughput. It does not show what a crowd that keeps coming feels
//! while the service is stopped (coordinated omission): read its latencies as those of a saturated service.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use crate::Failure;
use crate::connection::Connection;
use crate::scenario::{Done, Scenario};

/// Latencies are kept in nanoseconds up to a minute, with two significant digits.
const LONGEST_NS: u64 = 60_000_000_000;

/// What a run came to.
pub(crate) struct Outcome {
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// Units (requests, or whole purchases) that ended well, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// What did not end well, by status; 0 is a connection that broke.
    pub(crate) failures: BTreeMap<u16, u64>,
    /// Whether what was prepared ran out before the time did.
    pub(crate) exhausted: bool,
}

impl Outcome {
    /// Nothing so far.
    pub(crate) fn nothing() -> Result<Self, Failure> {
        let latency = Histogram::new_with_max(LONGEST_NS, 2)?;
        Ok(Self { elapsed: Duration::ZERO, latency, failures: BTreeMap::new(), exhausted: false })
    }

    /// Takes in a run that went on at the same time.
    pub(crate) fn add(&mut self, other: Self) -> Result<(), Failure> {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency.add(other.latency)?;
        for (status, count) in other.failures {
            *self.failures.entry(status).or_default() += count;
        }
        self.exhausted |= other.exhausted;
        Ok(())
    }

    /// Units that ended well.
    pub(crate) fn succeeded(&self) -> u64 {
        self.latency.len()
    }

    /// Units that ended well, a second.
    pub(crate) fn rate(&self) -> f64 {
        self.succeeded() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs a scenario on `connections` connections for `time`.
pub(crate) async fn run(
    scenario: &Rc<Scenario>,
    address: SocketAddr,
    connections: usize,
    time: Duration,
) -> Result<Outcome, Failure> {
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(Connection::open(address).await?);
    }
    let outcome = Rc::new(RefCell::new(Outcome::nothing()?));
    let started = Instant::now();
    let local = LocalSet::new();
    for connection in opened {
        let (scenario, outcome) = (scenario.clone(), outcome.clone());
        local.spawn_local(async move { work(connection, &scenario, &outcome, started + time).await });
    }
    local.await;
    let mut outcome = Rc::into_inner(outcome).ok_or("a worker outlived its run")?.into_inner();
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}

async fn work(mut connection: Connection, scenario: &Scenario, outcome: &RefCell<Outcome>, end: Instant) {
    loop {
        let begun = Instant::now();
        if begun >= end {
            return;
        }
        let done = scenario.unit(&mut connection).await;
        let broken = done.is_err();
        record(&mut outcome.borrow_mut(), done, begun.elapsed());
        let exhausted = outcome.borrow().exhausted;
        if exhausted || broken && connection.reopen().await.is_err() {
            return;
        }
    }
}

fn record(outcome: &mut Outcome, done: io::Result<Done>, took: Duration) {
    match done {
        Ok(Done::Well) => {
            outcome.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LONGEST_NS));
        }
        Ok(Done::Status(status)) => *outcome.failures.entry(status).or_default() += 1,
        Ok(Done::Nothing) => outcome.exhausted = true,
        Err(_) => *outcome.failures.entry(0).or_default() += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_well_counts() {
        let mut outcome = Outcome { elapsed: Duration::from_secs(2), ..Outcome::nothing().unwrap() };
        for ms in 1..=100 {
            record(&mut outcome, Ok(Done::Well), Duration::from_millis(ms));
        }
        record(&mut outcome, Ok(Done::Status(503)), Duration::from_millis(1));
        record(&mut outcome, Err(io::ErrorKind::BrokenPipe.into()), Duration::from_millis(1));
        assert_eq!((outcome.succeeded(), outcome.rate()), (100, 50.0));
        assert_eq!(outcome.failures, BTreeMap::from([(0, 1), (503, 1)]));
        let p99 = outcome.latency.value_at_quantile(0.99) as f64 / 1e6;
        assert!((98.0..=100.0).contains(&p99), "{p99}");
        assert!(!outcome.exhausted);

        let mut both = Outcome::nothing().unwrap();
        both.add(outcome).unwrap();
        let mut shorter = Outcome { elapsed: Duration::from_secs(1), ..Outcome::nothing().unwrap() };
        record(&mut shorter, Ok(Done::Well), Duration::from_millis(1));
        record(&mut shorter, Ok(Done::Status(503)), Duration::from_millis(1));
        both.add(shorter).unwrap();
        assert_eq!((both.succeeded(), both.rate()), (101, 50.5));
        assert_eq!(both.failures, BTreeMap::from([(0, 1), (503, 2)]));
    }
}
