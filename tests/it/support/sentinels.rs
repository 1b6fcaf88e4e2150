//! A primary, its replicas, and three Sentinels that monitor them.

use std::net::{Ipv4Addr, TcpListener};

use tokio::sync::Mutex;
use usher::dev::{PrivateRedis, PrivateServer, TempDir, redis_program};

use super::resp::RespClient;
use super::servers::RedisNodes;
use super::{ELECTION_TIMEOUT, signal, within};

const SERVICE: &str = "main";

/// The servers, which stop when this is dropped.
pub(crate) struct SentinelGroup {
    data: Vec<Mutex<Option<PrivateRedis>>>,
    /// The ports of the data nodes.
    pub(crate) ports: Vec<u16>,
    sentinels: Vec<PrivateServer>,
    dir: TempDir,
    min_replicas: &'static str,
}

impl SentinelGroup {
    /// As [`Self::start_with`], with one replica.
    pub(crate) async fn start(min_replicas: &'static str) -> Self {
        Self::start_with(min_replicas, 1).await
    }

    /// Starts all servers and waits until they know each other. `min_replicas` is
    /// `min-replicas-to-write` of the data nodes.
    pub(crate) async fn start_with(min_replicas: &'static str, replicas: usize) -> Self {
        let dir = TempDir::new("it-sentinel").unwrap();
        let mut site =
            Self { data: Vec::new(), ports: Vec::new(), sentinels: Vec::new(), dir, min_replicas };
        for _ in 0..=replicas {
            let mut tries = 0;
            let redis = loop {
                let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                    .unwrap()
                    .local_addr()
                    .unwrap()
                    .port();
                match site.start_data(port).await {
                    Ok(redis) => break redis,
                    Err(error) if tries > 5 => panic!("{error}"),
                    Err(_) => tries += 1,
                }
            };
            site.ports.push(redis.port());
            site.data.push(Mutex::new(Some(redis)));
        }
        let primary = site.ports[0].to_string();
        for port in &site.ports[1..] {
            let mut replica = RespClient::connect(*port).await;
            replica.ask(&["REPLICAOF", "127.0.0.1", &primary]).await;
        }
        for at in 0..3 {
            let place = site.dir.path().join(format!("sentinel-{at}"));
            std::fs::create_dir(&place).unwrap();
            let file = place.join("sentinel.conf");
            let text = format!(
                "sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\nsentinel \
                     down-after-milliseconds {SERVICE} 1500\n\
                 sentinel failover-timeout {SERVICE} 5000\n"
            );
            let arguments = |dir: &std::path::Path, port: u16| {
                std::fs::write(
                    &file,
                    format!("port {port}\nbind 127.0.0.1\ndir {}\n{text}", dir.display()),
                )
                .unwrap();
                vec![file.clone().into(), "--sentinel".into()]
            };
            let program = redis_program().unwrap();
            let sentinel =
                PrivateServer::start("Sentinel", &program, &place, arguments).await.unwrap();
            site.sentinels.push(sentinel);
        }
        site.wait_until_healthy().await;
        site
    }

    async fn start_data(&self, port: u16) -> Result<PrivateRedis, usher::dev::Error> {
        let dir = self.dir.path().join(port.to_string());
        let more =
            ["--min-replicas-to-write", self.min_replicas, "--repl-diskless-sync-delay", "0"];
        PrivateRedis::start_with(&dir, port, &more).await
    }

    /// What instances need to connect.
    pub(crate) fn redis_nodes(&self) -> RedisNodes {
        let hosts: Vec<_> =
            self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
        let url = format!("redis-sentinel://{}/{SERVICE}", hosts.join(","));
        RedisNodes {
            url,
            ports: self.ports.clone(),
            cluster: false,
            replicas: self.ports.len() - 1,
        }
    }

    /// Waits until all servers agree on the primary, the others replicate it, and every Sentinel
    /// knows all.
    pub(crate) async fn wait_until_healthy(&self) {
        within(ELECTION_TIMEOUT, "the Sentinels know all servers", || async {
            let primary = self.primary().await?;
            for sentinel in &self.sentinels {
                let mut asked = RespClient::connect(sentinel.port()).await;
                let reported = asked.ask(&["SENTINEL", "MASTER", SERVICE]).await.list();
                let reported: Vec<String> =
                    reported.into_iter().map(super::resp::RespValue::text).collect();
                let word = |name: &str| {
                    reported.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone())
                };
                let knows = word("port")? == primary.to_string()
                    && word("flags")? == "master"
                    && word("num-slaves")? == (self.ports.len() - 1).to_string()
                    && word("num-other-sentinels")? == "2";
                if !knows {
                    return None;
                }
            }
            for other in self.others(primary) {
                // A server that becomes a replica closes its connections.
                let mut asked = RespClient::connect(other).await;
                let role = asked.ask_or_error(&["INFO", "replication"]).await.ok()?.text();
                if !role.contains("role:slave") || !role.contains("master_link_status:up") {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// The port of the primary that most Sentinels name, or `None` while they disagree.
    pub(crate) async fn primary(&self) -> Option<u16> {
        let mut named: Vec<u16> = Vec::new();
        for sentinel in &self.sentinels {
            let mut asked = RespClient::connect(sentinel.port()).await;
            let reported =
                asked.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await.list();
            named.push(reported[1].clone().text().parse().unwrap());
        }
        self.ports.iter().copied().find(|port| named.iter().filter(|it| *it == port).count() >= 2)
    }

    /// Waits until the Sentinels have replaced a primary.
    pub(crate) async fn wait_until_replaced(&self, before: u16) {
        within(ELECTION_TIMEOUT, "another is the primary", || async {
            let primary = self.primary().await.filter(|port| *port != before)?;
            let role =
                RespClient::connect(primary).await.ask(&["INFO", "replication"]).await.text();
            role.contains("role:master").then_some(())
        })
        .await;
    }

    /// The data node that is not on this port, of two.
    pub(crate) fn other(&self, port: u16) -> u16 {
        self.others(port).next().unwrap()
    }

    /// The data nodes that are not on this port.
    pub(crate) fn others(&self, port: u16) -> impl Iterator<Item = u16> {
        self.ports.iter().copied().filter(move |it| *it != port)
    }

    fn at(&self, port: u16) -> usize {
        self.ports.iter().position(|it| *it == port).unwrap()
    }

    /// Freezes a data node, or resumes it.
    pub(crate) async fn freeze(&self, port: u16, still: bool) {
        let pid = self.data[self.at(port)].lock().await.as_ref().unwrap().pid();
        signal(if still { "-STOP" } else { "-CONT" }, pid);
    }

    /// Kills a data node with -9.
    pub(crate) async fn kill(&self, port: u16) {
        let mut server = self.data[self.at(port)].lock().await.take().unwrap();
        signal("-KILL", server.pid());
        server.ended().await;
    }

    /// Restarts a data node on its port with its data.
    pub(crate) async fn restart(&self, port: u16) {
        *self.data[self.at(port)].lock().await = Some(self.start_data(port).await.unwrap());
    }
}
