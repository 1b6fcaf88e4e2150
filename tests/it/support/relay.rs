//! A TCP relay in front of Redis or MySQL, which delays, freezes, cuts and loses what passes.
//!
//! It knows neither protocol. A strike waits for a request that contains certain bytes (`COMMIT`, a script's SHA-1) and loses the
//! request, or its reply, and the connection with it. A lost reply is lost only after the server has done the work: the relay
//! closes the server's side behind the request and reads it to its end before it hangs up on the client.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use usher::config::args::ServeArgs;

use super::servers::{Stores, redis_url_at};

/// What a strike loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lose {
    /// The server never sees the request.
    Request,
    /// The server has done what was asked, and nobody hears of it.
    Reply,
}

#[derive(Debug, Clone, Copy)]
struct Weather {
    up: bool,
    /// Connections live as long as this stays what it was.
    cuts: u32,
    frozen: bool,
    swallowing: bool,
    delay: Duration,
}

#[derive(Default)]
struct Strikes {
    next: Option<(Vec<u8>, Lose)>,
    left: usize,
    done: usize,
    seen: usize,
}

/// A relay. Dropping it cuts every connection.
pub(crate) struct Relay {
    port: u16,
    weather: Arc<watch::Sender<Weather>>,
    strikes: Arc<Mutex<Strikes>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// In front of a port of 127.0.0.1, in fair weather.
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fair =
            Weather { up: true, cuts: 0, frozen: false, swallowing: false, delay: Duration::ZERO };
        let weather = Arc::new(watch::Sender::new(fair));
        let strikes = Arc::<Mutex<Strikes>>::default();
        let (seen, shared) = (weather.clone(), strikes.clone());
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // While it is down, whoever comes is hung up on.
                if seen.borrow().up {
                    tokio::spawn(carry(client, server, seen.subscribe(), shared.clone()));
                }
            }
        });
        Self { port, weather, strikes, task }
    }

    /// Where clients find it.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection and hangs up on new ones, until [`Self::up`].
    pub(crate) fn down(&self) {
        self.weather.send_modify(|weather| (weather.up, weather.cuts) = (false, weather.cuts + 1));
    }

    /// Lets clients through again.
    pub(crate) fn up(&self) {
        self.weather.send_modify(|weather| weather.up = true);
    }

    /// Cuts every connection; new ones are fine.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Holds everything back, both ways, with connections open; or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.weather.send_modify(|weather| weather.frozen = frozen);
    }

    /// Loses every reply from now on, with connections open; or no longer.
    pub(crate) fn swallow_replies(&self, swallowing: bool) {
        self.weather.send_modify(|weather| weather.swallowing = swallowing);
    }

    /// Holds each piece of a reply back for so long.
    pub(crate) fn delay_replies(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Loses the next `times` requests that contain `bytes`, or their replies, each with its connection.
    pub(crate) fn strike(&self, bytes: &str, lose: Lose, times: usize) {
        let mut strikes = self.strikes.lock().unwrap();
        strikes.next = Some((bytes.as_bytes().to_vec(), lose));
        strikes.left = times;
    }

    /// How many strikes there were in all.
    pub(crate) fn struck(&self) -> usize {
        self.strikes.lock().unwrap().done
    }

    /// How many requests have come, those that came in one piece counted as one.
    pub(crate) fn requests(&self) -> usize {
        self.strikes.lock().unwrap().seen
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.down();
    }
}

impl Strikes {
    /// Whether what passes now is struck. `seen` is what the client sent last, with a little of what went before.
    fn hit(&mut self, seen: &[u8]) -> Option<Lose> {
        self.seen += 1;
        let (bytes, lose) = self.next.as_ref()?;
        if self.left == 0 || !seen.windows(bytes.len()).any(|window| window == bytes) {
            return None;
        }
        (self.left, self.done) = (self.left - 1, self.done + 1);
        Some(*lose)
    }
}

/// One client's connection, from its beginning to its end.
async fn carry(
    client: TcpStream,
    server: u16,
    weather: watch::Receiver<Weather>,
    strikes: Arc<Mutex<Strikes>>,
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
    mut weather: watch::Receiver<Weather>,
    strikes: &Mutex<Strikes>,
    doom: watch::Sender<bool>,
) {
    /// As much of what went before as a needle may begin in.
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
            Some(Lose::Request) => return,
            Some(Lose::Reply) => {
                doom.send_replace(true);
                let _ = to.write_all(&piece[..length]).await;
                let _ = to.shutdown().await;
                // The other half reads the server to its end, and ends this connection.
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
    mut weather: watch::Receiver<Weather>,
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

/// A relay in front of each store of a test. What the test itself asks goes straight.
pub(crate) struct Relays {
    pub(crate) redis: Relay,
    pub(crate) mysql: Relay,
    redis_url: String,
    mysql_url: String,
}

impl Relays {
    /// In front of `stores`.
    pub(crate) async fn before(stores: &Stores) -> Self {
        let (redis, mysql) =
            tokio::join!(Relay::to(stores.redis_port), Relay::to(stores.mysql_port));
        let (redis_url, mysql_url) =
            (redis_url_at(redis.port()), stores.mysql_url_at(mysql.port()));
        Self { redis, mysql, redis_url, mysql_url }
    }

    /// The settings of an instance in this process that reaches its stores through the relays.
    pub(crate) fn args(&self, stores: &Stores) -> ServeArgs {
        let mut args = stores.args();
        args.stores.redis_url = Some(self.redis_url.clone());
        args.stores.mysql_url = Some(self.mysql_url.clone());
        args
    }

    /// The same for a process of its own.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("USHER_REDIS_URL", self.redis_url.clone()),
            ("USHER_MYSQL_URL", self.mysql_url.clone()),
        ]
    }
}
