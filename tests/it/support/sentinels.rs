//! A primary and its replica, and three Sentinels who watch over them.

use std::net::{Ipv4Addr, TcpListener};

use tokio::sync::Mutex;
use usher::dev::{PrivateRedis, PrivateServer, TempDir, redis_program};

use super::resp::Resp;
use super::servers::Several;
use super::{ELECTED, signal, within};

const SERVICE: &str = "main";

/// The servers. They end with it.
pub(crate) struct Sentinels {
    data: Vec<Mutex<Option<PrivateRedis>>>,
    /// Of the two that hold data.
    pub(crate) ports: Vec<u16>,
    sentinels: Vec<PrivateServer>,
    dir: TempDir,
    min_replicas: &'static str,
}

impl Sentinels {
    /// Starts all of them and waits until they know each other. `min_replicas` is `min-replicas-to-write` of whoever is the primary.
    pub(crate) async fn start(min_replicas: &'static str) -> Self {
        let dir = TempDir::new("it-sentinel").unwrap();
        let mut site =
            Self { data: Vec::new(), ports: Vec::new(), sentinels: Vec::new(), dir, min_replicas };
        for _ in 0..2 {
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
        let mut replica = Resp::connect(site.ports[1]).await;
        replica.ask(&["REPLICAOF", "127.0.0.1", &primary]).await;
        for at in 0..3 {
            let place = site.dir.path().join(format!("sentinel-{at}"));
            std::fs::create_dir(&place).unwrap();
            let file = place.join("sentinel.conf");
            let text = format!(
                "sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds {SERVICE} 1500\n\
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
        site.are_whole().await;
        site
    }

    async fn start_data(&self, port: u16) -> Result<PrivateRedis, usher::dev::Error> {
        let dir = self.dir.path().join(port.to_string());
        let more =
            ["--min-replicas-to-write", self.min_replicas, "--repl-diskless-sync-delay", "0"];
        PrivateRedis::start_as(&dir, port, &more).await
    }

    /// What instances need to know.
    pub(crate) fn several(&self) -> Several {
        let hosts: Vec<_> =
            self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
        let url = format!("redis-sentinel://{}/{SERVICE}", hosts.join(","));
        Several { url, ports: self.ports.clone(), cluster: false }
    }

    /// Waits until one is the primary in everybody's eyes, the other follows it, and every Sentinel knows all that.
    pub(crate) async fn are_whole(&self) {
        within(ELECTED, "the Sentinels know everybody", || async {
            let primary = self.primary().await?;
            for sentinel in &self.sentinels {
                let mut asked = Resp::connect(sentinel.port()).await;
                let told = asked.ask(&["SENTINEL", "MASTER", SERVICE]).await.list();
                let told: Vec<String> = told.into_iter().map(super::resp::Reply::text).collect();
                let word = |name: &str| {
                    told.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone())
                };
                let knows = word("port")? == primary.to_string()
                    && word("flags")? == "master"
                    && word("num-slaves")? == "1"
                    && word("num-other-sentinels")? == "2";
                if !knows {
                    return None;
                }
            }
            let other = self.ports.iter().find(|port| **port != primary)?;
            let role = Resp::connect(*other).await.ask(&["INFO", "replication"]).await.text();
            (role.contains("role:slave") && role.contains("master_link_status:up")).then_some(())
        })
        .await;
    }

    /// The port of the primary that most Sentinels name; nothing while they don't agree.
    pub(crate) async fn primary(&self) -> Option<u16> {
        let mut named: Vec<u16> = Vec::new();
        for sentinel in &self.sentinels {
            let mut asked = Resp::connect(sentinel.port()).await;
            let told = asked.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await.list();
            named.push(told[1].clone().text().parse().unwrap());
        }
        self.ports.iter().copied().find(|port| named.iter().filter(|it| *it == port).count() >= 2)
    }

    /// Waits until the Sentinels have put another in a primary's place.
    pub(crate) async fn replaced(&self, before: u16) {
        within(ELECTED, "another is the primary", || async {
            let primary = self.primary().await.filter(|port| *port != before)?;
            let role = Resp::connect(primary).await.ask(&["INFO", "replication"]).await.text();
            role.contains("role:master").then_some(())
        })
        .await;
    }

    /// The one that is not on a port.
    pub(crate) fn other(&self, port: u16) -> u16 {
        *self.ports.iter().find(|it| **it != port).unwrap()
    }

    fn at(&self, port: u16) -> usize {
        self.ports.iter().position(|it| *it == port).unwrap()
    }

    /// Freezes one that holds data, or lets it go on.
    pub(crate) async fn freeze(&self, port: u16, still: bool) {
        let pid = self.data[self.at(port)].lock().await.as_ref().unwrap().pid();
        signal(if still { "-STOP" } else { "-CONT" }, pid);
    }

    /// Kills one that holds data with -9.
    pub(crate) async fn kill(&self, port: u16) {
        let mut server = self.data[self.at(port)].lock().await.take().unwrap();
        signal("-KILL", server.pid());
        server.ended().await;
    }

    /// Starts one again where it was, with what it had.
    pub(crate) async fn start_again(&self, port: u16) {
        *self.data[self.at(port)].lock().await = Some(self.start_data(port).await.unwrap());
    }
}
