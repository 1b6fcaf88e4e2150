//! A closed loop: each connection sends its next request when it has the response to its last one.
//!
//! It finds the throughput that the machine allows, and the latency at that throughput. It does not
//! show what users feel while the service stalls (coordinated omission): see `open_loop`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use crate::BoxError;
use crate::connection::HttpConnection;
use crate::scenario::{LoadScenario, UnitResult};

const MAX_LATENCY_NS: u64 = 60_000_000_000;

pub(crate) struct LoadOutcome {
    /// From the first request to the last response.
    pub(crate) elapsed: Duration,
    /// Latencies of successful units, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Failed units by status; 0 is a broken connection.
    pub(crate) failures: BTreeMap<u16, u64>,
    /// Whether the prepared items ran out before the time did.
    pub(crate) exhausted: bool,
}

impl LoadOutcome {
    fn new() -> Result<Self, BoxError> {
        let latency = Histogram::new_with_max(MAX_LATENCY_NS, 2)?;
        Ok(Self { elapsed: Duration::ZERO, latency, failures: BTreeMap::new(), exhausted: false })
    }

    pub(crate) fn succeeded(&self) -> u64 {
        self.latency.len()
    }

    /// Successful units per second.
    pub(crate) fn rate(&self) -> f64 {
        self.succeeded() as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }

    fn record(&mut self, result: io::Result<UnitResult>, took: Duration) {
        match result {
            Ok(UnitResult::Success) => {
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(MAX_LATENCY_NS);
                self.latency.saturating_record(nanos);
            }
            Ok(UnitResult::UnexpectedStatus(status)) => {
                *self.failures.entry(status).or_default() += 1;
            }
            Ok(UnitResult::Exhausted) => self.exhausted = true,
            Err(_) => *self.failures.entry(0).or_default() += 1,
        }
    }
}

/// Runs a scenario on `connections` connections for `time`.
pub(crate) async fn run(
    scenario: &Rc<LoadScenario>,
    address: SocketAddr,
    connections: usize,
    time: Duration,
) -> Result<LoadOutcome, BoxError> {
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(HttpConnection::open(address).await?);
    }
    let outcome = Rc::new(RefCell::new(LoadOutcome::new()?));
    let started = Instant::now();
    let local = LocalSet::new();
    for connection in opened {
        let (scenario, outcome) = (scenario.clone(), outcome.clone());
        local.spawn_local(async move {
            run_connection(connection, &scenario, &outcome, started + time).await;
        });
    }
    local.await;
    let mut outcome = Rc::into_inner(outcome).ok_or("a task outlived its run")?.into_inner();
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}

async fn run_connection(
    mut connection: HttpConnection,
    scenario: &LoadScenario,
    outcome: &RefCell<LoadOutcome>,
    end: Instant,
) {
    loop {
        let begun = Instant::now();
        if begun >= end {
            return;
        }
        let result = scenario.run_unit(&mut connection).await;
        let broken = result.is_err();
        outcome.borrow_mut().record(result, begun.elapsed());
        let exhausted = outcome.borrow().exhausted;
        if exhausted || broken && connection.reconnect().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_successful_units_count() {
        let mut outcome =
            LoadOutcome { elapsed: Duration::from_secs(2), ..LoadOutcome::new().unwrap() };
        for ms in 1..=100 {
            outcome.record(Ok(UnitResult::Success), Duration::from_millis(ms));
        }
        outcome.record(Ok(UnitResult::UnexpectedStatus(503)), Duration::from_millis(1));
        outcome.record(Err(io::ErrorKind::BrokenPipe.into()), Duration::from_millis(1));
        assert_eq!((outcome.succeeded(), outcome.rate()), (100, 50.0));
        assert_eq!(outcome.failures, BTreeMap::from([(0, 1), (503, 1)]));
        assert!((98.0..=100.0).contains(&outcome.latency_ms(0.99)));
        assert!(!outcome.exhausted);
    }
}
