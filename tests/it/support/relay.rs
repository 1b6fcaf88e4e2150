//! A TCP relay in front of Redis or MySQL, which delays, freezes, cuts and loses traffic.
//!
//! It knows neither protocol. A planned loss waits for a request that contains certain bytes
//! (`COMMIT`, the SHA-1 of a script) and drops the request, or its reply, and closes the
//! connection. A reply is dropped only after the server has done the work: the relay closes the
//! server's side behind the request and reads the reply to its end before it disconnects the
//! client.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use usher::config::args::ServeArgs;

use super::servers::{TestStores, redis_url_at};

/// What a planned loss drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LossTarget {
    /// The server never receives the request.
    Request,
    /// The server executes the request, and the client never receives the reply.
    Reply,
}

#[derive(Debug, Clone, Copy)]
struct RelayState {
    up: bool,
    /// Connections live until this changes.
    cuts: u32,
    frozen: bool,
    swallowing: bool,
    delay: Duration,
}

#[derive(Default)]
struct PlannedLosses {
    next: Option<(Vec<u8>, LossTarget)>,
    left: usize,
    done: usize,
    seen: usize,
}

/// A relay. Dropping it closes every connection.
pub(crate) struct TcpRelay {
    port: u16,
    weather: Arc<watch::Sender<RelayState>>,
    strikes: Arc<Mutex<PlannedLosses>>,
    task: JoinHandle<()>,
}

impl TcpRelay {
    /// In front of a port of 127.0.0.1, without faults.
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fair = RelayState {
            up: true,
            cuts: 0,
            frozen: false,
            swallowing: false,
            delay: Duration::ZERO,
        };
        let weather = Arc::new(watch::Sender::new(fair));
        let strikes = Arc::<Mutex<PlannedLosses>>::default();
        let (seen, shared) = (weather.clone(), strikes.clone());
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // While the relay is down, new connections are closed.
                if seen.borrow().up {
                    tokio::spawn(carry(client, server, seen.subscribe(), shared.clone()));
                }
            }
        });
        Self { port, weather, strikes, task }
    }

    /// The port for clients.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection and refuses new ones until [`Self::up`].
    pub(crate) fn down(&self) {
        self.weather.send_modify(|weather| (weather.up, weather.cuts) = (false, weather.cuts + 1));
    }

    /// Accepts connections again.
    pub(crate) fn up(&self) {
        self.weather.send_modify(|weather| weather.up = true);
    }

    /// Closes every connection. New ones are accepted.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Stops or resumes all traffic in both directions. Connections stay open.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.weather.send_modify(|weather| weather.frozen = frozen);
    }

    /// Drops every reply from now on (or no longer). Connections stay open.
    pub(crate) fn swallow_replies(&self, swallowing: bool) {
        self.weather.send_modify(|weather| weather.swallowing = swallowing);
    }

    /// Delays each chunk of a reply.
    pub(crate) fn delay_replies(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Drops the next `times` requests that contain `bytes`, or their replies, and closes their
    /// connections.
    pub(crate) fn strike(&self, bytes: &str, lose: LossTarget, times: usize) {
        let mut strikes = self.strikes.lock().unwrap();
        strikes.next = Some((bytes.as_bytes().to_vec(), lose));
        strikes.left = times;
    }

    /// Number of planned losses that have happened.
    pub(crate) fn struck(&self) -> usize {
        self.strikes.lock().unwrap().done
    }

    /// Number of requests so far. Requests in one chunk count as one.
    pub(crate) fn requests(&self) -> usize {
        self.strikes.lock().unwrap().seen
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.task.abort();
        self.down();
    }
}

impl PlannedLosses {
    /// Whether to drop the current chunk. `seen` is the last chunk of the client, with the end of
    /// the one before.
    fn hit(&mut self, seen: &[u8]) -> Option<LossTarget> {
        self.seen += 1;
        let (bytes, lose) = self.next.as_ref()?;
        if self.left == 0 || !seen.windows(bytes.len()).any(|window| window == bytes) {
            return None;
        }
        (self.left, self.done) = (self.left - 1, self.done + 1);
        Some(*lose)
    }
}

/// Serves one connection of a client.
async fn carry(
    client: TcpStream,
    server: u16,
    weather: watch::Receiver<RelayState>,
    strikes: Arc<Mutex<PlannedLosses>>,
) {
    let born = weather.borrow().cuts;
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (dropped, doomed) = watch::channel(false);
    let mut cuts = weather.clone();
    let both = async {
        tokio::select! {
            () = requests(from_client, to_server, weather.clone(), &strikes, dropped) => {}
            () = replies(from_server, to_client, weather.clone(), doomed) => {}
        }
    };
    tokio::select! {
        () = both => {}
        _ = cuts.wait_for(|weather| weather.cuts != born) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<RelayState>,
    strikes: &Mutex<PlannedLosses>,
    doom: watch::Sender<bool>,
) {
    /// Bytes of the previous chunk that may contain the beginning of a needle.
    const OVERLAP: usize = 64;
    let mut piece = vec![0; 64 * 1024];
    let mut seen = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if weather.wait_for(|weather| !weather.frozen).await.is_err() {
            return;
        }
        seen.drain(..seen.len().saturating_sub(OVERLAP));
        seen.extend_from_slice(&piece[..length]);
        let hit = strikes.lock().unwrap().hit(&seen);
        match hit {
            Some(LossTarget::Request) => return,
            Some(LossTarget::Reply) => {
                doom.send_replace(true);
                let _ = to.write_all(&piece[..length]).await;
                let _ = to.shutdown().await;
                // The other half reads the server to its end, and closes this connection.
                std::future::pending::<()>().await;
            }
            None => {
                if to.write_all(&piece[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<RelayState>,
    doomed: watch::Receiver<bool>,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let thawed = weather.wait_for(|weather| !weather.frozen).await.map(|weather| *weather);
        let Ok(now) = thawed else { return };
        tokio::time::sleep(now.delay).await;
        if now.swallowing || *doomed.borrow() {
            continue;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// A relay in front of each store of a test. Queries of the test itself bypass them.
pub(crate) struct StoreRelays {
    pub(crate) redis: TcpRelay,
    pub(crate) mysql: TcpRelay,
    redis_url: String,
    mysql_url: String,
}

impl StoreRelays {
    pub(crate) async fn before(stores: &TestStores) -> Self {
        let (redis, mysql) =
            tokio::join!(TcpRelay::to(stores.redis_port), TcpRelay::to(stores.mysql_port));
        let (redis_url, mysql_url) =
            (redis_url_at(redis.port()), stores.mysql_url_at(mysql.port()));
        Self { redis, mysql, redis_url, mysql_url }
    }

    /// The settings of an instance in this process that reaches its stores through the relays.
    pub(crate) fn args(&self, stores: &TestStores) -> ServeArgs {
        let mut args = stores.args();
        args.stores.redis_url = Some(self.redis_url.clone());
        args.stores.mysql_url = Some(self.mysql_url.clone());
        args
    }

    /// As [`Self::args`], for a separate process.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("USHER_REDIS_URL", self.redis_url.clone()),
            ("USHER_MYSQL_URL", self.mysql_url.clone()),
        ]
    }
}
