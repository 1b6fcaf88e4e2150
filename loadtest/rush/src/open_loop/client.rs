//! HTTP client of one thread: its users share a fixed number of connections.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Semaphore;

use super::generator::LoadProgress;
use super::latency::{LatencySeries, RequestStep};
use super::observation::UserObservation;
use crate::connection::HttpConnection;

/// Attempts per request if the service refuses it temporarily (429, 503) or the connection breaks.
const MAX_ATTEMPTS: usize = 8;
const RETRY_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy)]
pub(super) struct UserRequest<'a> {
    pub(super) step: RequestStep,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a str,
    /// Statuses that the contract allows here. Any other status is a failure.
    pub(super) expected: &'a [u16],
}

/// A response with an expected status.
#[derive(Debug)]
pub(super) struct ServiceAnswer {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) sent: Instant,
    pub(super) answered: Instant,
}

pub(super) struct LoadClient {
    address: SocketAddr,
    idle: RefCell<VecDeque<HttpConnection>>,
    permits: Semaphore,
    begun: Cell<Instant>,
    pub(super) latencies: RefCell<BTreeMap<RequestStep, LatencySeries>>,
    pub(super) observations: RefCell<Vec<UserObservation>>,
    pub(super) progress: Arc<LoadProgress>,
}

impl LoadClient {
    pub(super) async fn open(
        address: SocketAddr,
        connections: usize,
        progress: Arc<LoadProgress>,
    ) -> io::Result<Self> {
        let mut idle = VecDeque::with_capacity(connections);
        for _ in 0..connections {
            idle.push_back(HttpConnection::open(address).await?);
        }
        Ok(Self {
            address,
            idle: RefCell::new(idle),
            permits: Semaphore::new(connections),
            begun: Cell::new(Instant::now()),
            latencies: RefCell::default(),
            observations: RefCell::default(),
            progress,
        })
    }

    /// Marks the beginning of the run. Latencies measured before it are discarded.
    pub(super) fn begin(&self, begun: Instant) {
        self.latencies.borrow_mut().clear();
        self.begun.set(begun);
    }

    /// Microseconds since the run began.
    pub(super) fn since_begin(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.begun.get());
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    /// Sends a request, with retries, and records its latency from the moment it was due. Returns
    /// none if no expected response came, which counts as a failure of the step.
    pub(super) async fn send(
        &self,
        due: Instant,
        request: UserRequest<'_>,
    ) -> Option<ServiceAnswer> {
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            let result = self.send_once(request).await;
            let mut latencies = self.latencies.borrow_mut();
            let series = latencies.entry(request.step).or_default();
            let status = match result {
                Ok(answer) if request.expected.contains(&answer.status) => {
                    series.record(due, answer.sent, answer.answered);
                    return Some(answer);
                }
                Ok(answer) => answer.status,
                Err(_) => 0,
            };
            *series.failures.entry(status).or_default() += 1;
            if !matches!(status, 0 | 429 | 503) {
                return None;
            }
        }
        None
    }

    async fn send_once(&self, request: UserRequest<'_>) -> io::Result<ServiceAnswer> {
        let _permit = self.permits.acquire().await.map_err(io::Error::other)?;
        // The connection that was idle longest, so that none reaches the service's idle timeout.
        let idle = self.idle.borrow_mut().pop_front();
        let mut connection = match idle {
            Some(connection) => connection,
            // A connection that breaks is not returned to the list.
            None => HttpConnection::open(self.address).await?,
        };
        let sent = Instant::now();
        let UserRequest { method, path, headers, body, .. } = request;
        let status = match method {
            "GET" => connection.get(path, headers).await?,
            _ => connection.send(method, path, headers, body).await?,
        };
        let answered = Instant::now();
        let body = serde_json::from_slice(connection.body()).unwrap_or(Value::Null);
        self.idle.borrow_mut().push_back(connection);
        Ok(ServiceAnswer { status, body, sent, answered })
    }
}
