//! A Redis Cluster of three primaries with a replica each. Tests move its slots and kill its nodes.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::sync::Mutex;
use usher::dev::{PrivateRedis, TempDir};

use super::resp::{RespClient, RespValue};
use super::servers::RedisNodes;
use super::{ELECTION_TIMEOUT, POLL_INTERVAL, signal, within};

const PRIMARIES: usize = 3;
/// The other nodes declare a node failed after this time without a reply.
const NODE_TIMEOUT_MS: &str = "3000";

/// A line of `CLUSTER NODES`.
#[derive(Debug, Clone)]
pub(crate) struct ClusterMember {
    pub(crate) id: String,
    pub(crate) port: u16,
    pub(crate) primary: bool,
    pub(crate) failed: bool,
    slots: Vec<(u16, u16)>,
}

impl ClusterMember {
    /// Whether it is a primary that responds.
    fn leads(&self) -> bool {
        self.primary && !self.failed
    }

    fn owns(&self, slot: u16) -> bool {
        self.slots.iter().any(|(from, to)| (*from..=*to).contains(&slot))
    }
}

/// Six nodes, which stop when this is dropped.
pub(crate) struct RedisCluster {
    nodes: Vec<Mutex<Option<PrivateRedis>>>,
    pub(crate) ports: Vec<u16>,
    dir: TempDir,
}

impl RedisCluster {
    /// Starts the nodes, assigns the slots, and waits until all nodes agree and every replica is in
    /// sync.
    pub(crate) async fn start() -> Self {
        let dir = TempDir::new("it-cluster").unwrap();
        let mut cluster = Self { nodes: Vec::new(), ports: Vec::new(), dir };
        for _ in 0..2 * PRIMARIES {
            let mut tries = 0;
            let redis = loop {
                let port = free_port_with_bus();
                let dir = cluster.dir.path().join(port.to_string());
                // Another process may take one of the two ports first.
                match PrivateRedis::start_with(&dir, port, ARGUMENTS).await {
                    Ok(redis) => break redis,
                    Err(error) if tries > 5 => panic!("{error}"),
                    Err(_) => tries += 1,
                }
            };
            cluster.ports.push(redis.port());
            cluster.nodes.push(Mutex::new(Some(redis)));
        }
        cluster.join().await;
        cluster
    }

    async fn join(&self) {
        for (at, range) in [(0, ["0", "5460"]), (1, ["5461", "10922"]), (2, ["10923", "16383"])] {
            let mut node = RespClient::connect(self.ports[at]).await;
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]).await;
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]).await;
        }
        let mut first = RespClient::connect(self.ports[0]).await;
        for port in &self.ports[1..] {
            first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string()]).await;
        }
        for port in &self.ports {
            within(ELECTION_TIMEOUT, "every node knows the others", || async {
                let known = members(*port).await;
                (known.len() == self.ports.len()
                    && known.iter().filter(|it| !it.slots.is_empty()).count() == 3)
                    .then_some(())
            })
            .await;
        }
        for at in 0..PRIMARIES {
            let id = id_of(self.ports[at]).await;
            let mut replica = RespClient::connect(self.ports[at + PRIMARIES]).await;
            replica.ask(&["CLUSTER", "REPLICATE", &id]).await;
        }
        self.wait_until_healthy().await;
    }

    /// Waits until all nodes run and agree, and every replica is in sync with its primary.
    pub(crate) async fn wait_until_healthy(&self) {
        for port in &self.ports {
            within(ELECTION_TIMEOUT, "the cluster is whole", || async {
                let mut node = RespClient::connect(*port).await;
                let state = node.ask(&["CLUSTER", "INFO"]).await.text();
                let role = node.ask(&["INFO", "replication"]).await.text();
                let follows = role.contains("role:master") && role.contains("state=online")
                    || role.contains("master_link_status:up");
                let failed = members(*port).await.iter().any(|it| it.failed);
                (state.contains("cluster_state:ok") && follows && !failed).then_some(())
            })
            .await;
        }
    }

    /// What instances need to connect.
    pub(crate) fn redis_nodes(&self) -> RedisNodes {
        let hosts: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let url = format!("redis-cluster://{}", hosts.join(","));
        RedisNodes { url, ports: self.ports.clone(), cluster: true, replicas: 1 }
    }

    /// All nodes, as a responsive node sees them.
    pub(crate) async fn members(&self) -> Vec<ClusterMember> {
        members(self.responsive_node().await).await
    }

    /// A node that runs and is not frozen.
    async fn responsive_node(&self) -> u16 {
        for (at, node) in self.nodes.iter().enumerate() {
            if node.lock().await.is_some() {
                let pinged =
                    async { RespClient::connect(self.ports[at]).await.ask(&["PING"]).await };
                if tokio::time::timeout(Duration::from_secs(1), pinged).await.is_ok() {
                    return self.ports[at];
                }
            }
        }
        panic!("no node responds")
    }

    /// The primary that owns the slot of a key. During a failover, waits until there is one.
    pub(crate) async fn owner_of(&self, key: &str) -> ClusterMember {
        let slot = self.slot_of(key).await;
        within(ELECTION_TIMEOUT, "the slot has an owner", || async {
            self.members().await.into_iter().find(|it| it.leads() && it.owns(slot))
        })
        .await
    }

    /// Moves the slot of a key to another shard, key by key, with a pause after every few keys.
    ///
    /// On a loaded machine a primary may be demoted at any time. Then the move starts again between
    /// the primaries that the two shards have by then.
    pub(crate) async fn move_slot(&self, key: &str, pause: Duration) {
        let slot = self.slot_of(key).await;
        let from = self.shard_of(&self.owner_of(key).await);
        let to = (from + rand::rng().random_range(1..PRIMARIES)) % PRIMARIES;
        let deadline = Instant::now() + ELECTION_TIMEOUT;
        while let Err(error) = self.try_move_slot(slot, to, pause).await {
            assert!(Instant::now() < deadline, "slot {slot} could not be moved: {error}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Moves a slot to the current primary of a shard, or returns the first error reply. An
    /// interrupted move can be continued.
    async fn try_move_slot(&self, slot: u16, to: usize, pause: Duration) -> Result<(), String> {
        let leaders: Vec<_> = self.members().await.into_iter().filter(|it| it.leads()).collect();
        let source = leaders.iter().find(|it| it.owns(slot)).ok_or("the slot has no owner")?;
        let target =
            leaders.iter().find(|it| self.shard_of(it) == to).ok_or("the shard has no primary")?;
        if source.id == target.id {
            return Ok(());
        }
        let number = slot.to_string();
        let set_slot = ["CLUSTER", "SETSLOT", &number];
        let mut on_source = RespClient::connect(source.port).await;
        let mut on_target = RespClient::connect(target.port).await;
        on_target.ask_or_error(&[&set_slot[..], &["IMPORTING", &source.id]].concat()).await?;
        on_source.ask_or_error(&[&set_slot[..], &["MIGRATING", &target.id]].concat()).await?;
        loop {
            let keys = ["CLUSTER", "GETKEYSINSLOT", &number, "4"];
            let keys = on_source.ask_or_error(&keys).await?.list();
            if keys.is_empty() {
                break;
            }
            let keys: Vec<String> = keys.into_iter().map(RespValue::text).collect();
            let port = target.port.to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            on_source.ask_or_error(&words).await?;
            tokio::time::sleep(pause).await;
        }
        let assign = [&set_slot[..], &["NODE", &target.id]].concat();
        on_target.ask_or_error(&assign).await?;
        // From here on the target owns the slot. Other nodes that refuse learn it by gossip.
        on_source.try_command(&assign).await;
        for other in leaders.iter().filter(|it| it.id != source.id && it.id != target.id) {
            RespClient::connect(other.port).await.try_command(&assign).await;
        }
        Ok(())
    }

    /// The index of the shard of a node. A shard is a pair of nodes, in any roles.
    fn shard_of(&self, member: &ClusterMember) -> usize {
        self.ports.iter().position(|port| *port == member.port).unwrap() % PRIMARIES
    }

    /// Kills a node with -9.
    pub(crate) async fn kill(&self, port: u16) {
        let at = self.ports.iter().position(|it| *it == port).unwrap();
        let mut server = self.nodes[at].lock().await.take().unwrap();
        signal("-KILL", server.pid());
        server.ended().await;
    }

    /// Freezes a node, or resumes it.
    pub(crate) async fn freeze(&self, port: u16, still: bool) {
        let at = self.ports.iter().position(|it| *it == port).unwrap();
        let pid = self.nodes[at].lock().await.as_ref().unwrap().pid();
        signal(if still { "-STOP" } else { "-CONT" }, pid);
    }

    /// Restarts a node on its port with its data.
    pub(crate) async fn restart(&self, port: u16) {
        let at = self.ports.iter().position(|it| *it == port).unwrap();
        let dir = self.dir.path().join(port.to_string());
        *self.nodes[at].lock().await =
            Some(PrivateRedis::start_with(&dir, port, ARGUMENTS).await.unwrap());
    }

    /// Waits until another node has replaced a dead one.
    pub(crate) async fn wait_until_replaced(&self, dead: &ClusterMember, key: &str) {
        within(ELECTION_TIMEOUT, "a replica is promoted", || async {
            let slot = self.slot_of(key).await;
            let owner = self.members().await.into_iter().find(|it| it.primary && it.owns(slot));
            owner.filter(|owner| owner.id != dead.id && !owner.failed).map(drop)
        })
        .await;
    }

    async fn slot_of(&self, key: &str) -> u16 {
        let mut node = RespClient::connect(self.responsive_node().await).await;
        node.ask(&["CLUSTER", "KEYSLOT", key]).await.int().try_into().unwrap()
    }
}

const ARGUMENTS: &[&str] = &[
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    NODE_TIMEOUT_MS,
    "--cluster-replica-validity-factor",
    "0",
    "--cluster-allow-replica-migration",
    "no",
    "--repl-diskless-sync-delay",
    "0",
];

async fn id_of(port: u16) -> String {
    RespClient::connect(port).await.ask(&["CLUSTER", "MYID"]).await.text()
}

async fn members(port: u16) -> Vec<ClusterMember> {
    let text = RespClient::connect(port).await.ask(&["CLUSTER", "NODES"]).await.text();
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let has = |flag| words[2].split(',').any(|it| it == flag);
            let slots = words[8..].iter().filter(|range| !range.starts_with('[')).map(|range| {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                (from.parse().unwrap(), to.parse().unwrap())
            });
            ClusterMember {
                id: words[0].to_owned(),
                port: words[1]
                    .split('@')
                    .next()
                    .unwrap()
                    .rsplit(':')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap(),
                primary: has("master"),
                failed: has("fail") || has("fail?"),
                slots: slots.collect(),
            }
        })
        .collect()
}

/// A port that is free together with the port of the cluster bus, ten thousand above it.
pub(crate) fn free_port_with_bus() -> u16 {
    loop {
        // Below the ephemeral port range.
        let port = rand::rng().random_range(15_000..22_000);
        let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}
