//! A minimal Redis client. Tests inspect the data of the service with it, because it shares no code
//! with the service.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RespValue {
    Nil,
    Int(i64),
    Text(Vec<u8>),
    Error(String),
    List(Vec<RespValue>),
}

impl RespValue {
    /// The bytes of a text or of a number.
    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Text(bytes) => bytes,
            Self::Int(n) => n.to_string().into_bytes(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The text of a reply that must be one.
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    /// The items of a list.
    pub(crate) fn list(self) -> Vec<RespValue> {
        match self {
            Self::List(items) => items,
            other => panic!("not a list: {other:?}"),
        }
    }

    /// A whole number.
    pub(crate) fn int(self) -> i64 {
        match self {
            Self::Int(n) => n,
            other => other.text().parse().unwrap(),
        }
    }
}

/// A connection, and the other nodes that it may be redirected to.
pub(crate) struct RespClient {
    line: RespConnection,
    /// For a cluster: the ports of all primaries and their connections.
    primaries: BTreeMap<u16, Option<RespConnection>>,
}

impl RespClient {
    /// Connects to a port of 127.0.0.1.
    pub(crate) async fn connect(port: u16) -> Self {
        Self { line: RespConnection::connect(port).await, primaries: BTreeMap::new() }
    }

    /// Connects to the primary among several servers or, in a cluster, to all primaries.
    pub(crate) async fn among(ports: &[u16], cluster: bool) -> Self {
        let mut primaries = BTreeMap::new();
        for port in ports {
            let Some(mut line) = RespConnection::try_connect(*port).await else { continue };
            match line.ask(&["ROLE"]).await {
                RespValue::List(role) if role[0] == RespValue::Text(b"master".to_vec()) => {
                    primaries.insert(*port, Some(line));
                }
                _ => {}
            }
        }
        let (_, line) = primaries.iter_mut().next().expect("one of the servers is the primary");
        let line = line.take().unwrap();
        Self { line, primaries: if cluster { primaries } else { BTreeMap::new() } }
    }

    /// Sends one command and returns its reply or error. Follows redirects of a cluster.
    pub(crate) async fn try_command(&mut self, words: &[&str]) -> RespValue {
        if self.primaries.is_empty() {
            return self.line.ask(words).await;
        }
        if words[0] == "KEYS" {
            let mut keys = Vec::new();
            for (port, line) in &mut self.primaries {
                let line = match line {
                    Some(line) => line,
                    None => line.insert(RespConnection::connect(*port).await),
                };
                keys.extend(line.ask(words).await.list());
            }
            return RespValue::List(keys);
        }
        let mut reply = self.line.ask(words).await;
        for _ in 0..500 {
            let RespValue::Error(error) = &reply else { return reply };
            let first = error.split(' ').next().unwrap();
            match first {
                "MOVED" => {
                    let port = error.rsplit(':').next().unwrap().parse().unwrap();
                    let line = self.primaries.entry(port).or_default();
                    let line = match line {
                        Some(line) => line,
                        None => line.insert(RespConnection::connect(port).await),
                    };
                    reply = line.ask(words).await;
                }
                "TRYAGAIN" | "ASK" | "CLUSTERDOWN" => {
                    tokio::time::sleep(super::POLL_INTERVAL).await;
                    reply = self.line.ask(words).await;
                }
                _ => return reply,
            }
        }
        reply
    }

    /// Sends one command whose reply must not be an error.
    pub(crate) async fn ask(&mut self, words: &[&str]) -> RespValue {
        match self.try_command(words).await {
            RespValue::Error(error) => panic!("{words:?}: {error}"),
            reply => reply,
        }
    }

    /// Sends one command and returns its reply, or its error as `Err`.
    pub(crate) async fn ask_or_error(&mut self, words: &[&str]) -> Result<RespValue, String> {
        match self.try_command(words).await {
            RespValue::Error(error) => Err(format!("{words:?}: {error}")),
            reply => Ok(reply),
        }
    }

    /// All fields of a hash, sorted.
    pub(crate) async fn hash(&mut self, key: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut flat = self.ask(&["HGETALL", key]).await.list().into_iter().map(RespValue::bytes);
        let mut hash = BTreeMap::new();
        while let (Some(field), Some(value)) = (flat.next(), flat.next()) {
            hash.insert(field, value);
        }
        hash
    }

    /// Every key with a prefix and its content, sorted. For streams only the length. Without the
    /// records of the running instances, which are not state, and without the sets of busy queues,
    /// from which instances remove queues at any time.
    pub(crate) async fn dump_keys(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for key in self.ask(&["KEYS", &format!("{prefix}:*")]).await.list() {
            let key = key.text();
            if key.ends_with(":instances") || key.ends_with(":busy") {
                continue;
            }
            let kind = self.ask(&["TYPE", &key]).await.text();
            let value = match kind.as_str() {
                "string" => format!("{:?}", self.ask(&["GET", &key]).await),
                "hash" => format!("{:?}", self.hash(&key).await),
                "zset" => {
                    format!("{:?}", self.ask(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]).await)
                }
                "stream" => format!("{:?}", self.ask(&["XLEN", &key]).await),
                other => panic!("{key} has the type {other}, which this test cannot read"),
            };
            all.insert(key, value);
        }
        all
    }
}

/// One connection to one server.
struct RespConnection(BufReader<TcpStream>);

impl RespConnection {
    async fn connect(port: u16) -> Self {
        Self::try_connect(port).await.unwrap()
    }

    async fn try_connect(port: u16) -> Option<Self> {
        Some(Self(BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?)))
    }

    async fn ask(&mut self, words: &[&str]) -> RespValue {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        if self.0.get_mut().write_all(command.as_bytes()).await.is_err() {
            return closed();
        }
        self.read().await
    }

    async fn read(&mut self) -> RespValue {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await;
        let line = line.trim_end();
        if read.is_err() || line.is_empty() {
            return closed();
        }
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" => RespValue::Text(rest.into()),
            "-" => RespValue::Error(rest.to_owned()),
            ":" => RespValue::Int(rest.parse().unwrap()),
            "$" => {
                let Ok(len) = rest.parse::<usize>() else { return RespValue::Nil };
                let mut bytes = vec![0; len + 2];
                self.0.read_exact(&mut bytes).await.unwrap();
                bytes.truncate(len);
                RespValue::Text(bytes)
            }
            "*" => {
                let Ok(len) = rest.parse::<usize>() else { return RespValue::Nil };
                let mut items = Vec::with_capacity(len);
                for _ in 0..len {
                    items.push(Box::pin(self.read()).await);
                }
                RespValue::List(items)
            }
            _ => panic!("not RESP: {line}"),
        }
    }
}

/// The reply of a server that ends the connection instead of answering.
fn closed() -> RespValue {
    RespValue::Error("Redis closed the connection".to_owned())
}
