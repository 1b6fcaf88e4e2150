//! How the users of one process ask: over connections that they share, with what was due, sent and answered noted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Semaphore;

use super::measure::{Series, Step};
use super::seen::Seen;
use crate::connection::Connection;

/// How often a request is made again that was refused for the moment (429, 503) or whose connection broke.
const TRIES: usize = 8;
/// The pause before that.
const PAUSE: Duration = Duration::from_millis(250);

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) step: Step,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a str,
    /// The statuses that are answers; any other is a failure.
    pub(super) expected: &'a [u16],
}

/// An answer with an expected status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) sent: Instant,
    pub(super) answered: Instant,
}

/// Counts that the progress bar shows.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) came: Cell<u64>,
    pub(super) done: Cell<u64>,
    pub(super) admitted: Cell<u64>,
    pub(super) won: Cell<u64>,
}

/// One more.
pub(super) fn count(what: &Cell<u64>) {
    what.set(what.get() + 1);
}

/// What the users of a process share.
pub(super) struct Client {
    address: SocketAddr,
    idle: RefCell<VecDeque<Connection>>,
    places: Semaphore,
    start: Cell<Instant>,
    pub(super) latencies: RefCell<BTreeMap<Step, Series>>,
    pub(super) seen: RefCell<Vec<Seen>>,
    pub(super) counts: Counts,
}

impl Client {
    /// Opens the connections.
    pub(super) async fn open(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let mut idle = VecDeque::with_capacity(connections);
        for _ in 0..connections {
            idle.push_back(Connection::open(address).await?);
        }
        Ok(Self {
            address,
            idle: RefCell::new(idle),
            places: Semaphore::new(connections),
            start: Cell::new(Instant::now()),
            latencies: RefCell::default(),
            seen: RefCell::default(),
            counts: Counts::default(),
        })
    }

    /// The run begins now: what was measured until here is forgotten.
    pub(super) fn begin(&self) -> Instant {
        self.latencies.borrow_mut().clear();
        self.start.set(Instant::now());
        self.start.get()
    }

    /// Microseconds since the run began.
    pub(super) fn since_start(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start.get()).as_micros()).unwrap_or(u64::MAX)
    }

    /// Asks, again if need be, and notes how long the answer took from the moment at which the request was due. None: there was no
    /// expected answer, which is counted as a failure of the step.
    pub(super) async fn ask(&self, due: Instant, request: Request<'_>) -> Option<Answer> {
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let status = match self.once(request).await {
                Ok(answer) if request.expected.contains(&answer.status) => {
                    let mut latencies = self.latencies.borrow_mut();
                    let series = latencies.entry(request.step).or_default();
                    series.record(self.start.get(), due, answer.sent, answer.answered);
                    return Some(answer);
                }
                Ok(answer) => answer.status,
                Err(_) => 0,
            };
            let mut latencies = self.latencies.borrow_mut();
            *latencies.entry(request.step).or_default().failures.entry(status).or_default() += 1;
            if !matches!(status, 0 | 429 | 503) {
                return None;
            }
        }
        None
    }

    async fn once(&self, request: Request<'_>) -> io::Result<Answer> {
        let _place = self.places.acquire().await.map_err(io::Error::other)?;
        // The one that rested longest, so that none rests until the service closes it.
        let taken = self.idle.borrow_mut().pop_front();
        let mut connection = match taken {
            Some(connection) => connection,
            // One that broke left its place empty.
            None => Connection::open(self.address).await?,
        };
        let sent = Instant::now();
        let Request { method, path, headers, body, .. } = request;
        let status = match method {
            "GET" => connection.get(path, headers).await?,
            _ => connection.send(method, path, headers, body).await?,
        };
        let answered = Instant::now();
        let body = serde_json::from_slice(connection.body()).unwrap_or(Value::Null);
        self.idle.borrow_mut().push_back(connection);
        Ok(Answer { status, body, sent, answered })
    }
}
