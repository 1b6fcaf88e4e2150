//! Which server owns which partition: the one standalone Redis, the primary that the Sentinels
//! report, or the owners of a cluster's hash slots.
//!
//! A refresh asks all Sentinels or all connected nodes and uses the answer of the newest election
//! (`config-epoch`), so a primary that was paused during a failover and still believes that it is
//! one is ignored. A hash slot that is being migrated has two owners; its partition waits until
//! there is one again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fred::interfaces::{ClientLike, MetricsInterface};
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::node::RedisNode;
use super::slot_table::{self, SlotOwners, SlotTable};
use crate::partition::Partition;
use crate::redis::address::{RedisAddress, RedisLayout};
use crate::redis::{Error, KeyBuilder, ScriptReply};
use crate::telemetry::Metric;

/// How long a server may take to report the owners.
const QUERY_TIMEOUT: Duration = Duration::from_millis(500);

/// The configured address, and what is known of the servers behind it.
#[derive(Debug)]
pub(in crate::redis) struct ServerTopology {
    address: RedisAddress,
    timeout: Duration,
    partitions: Vec<Partition>,
    /// The cluster hash slot of each partition, 0…16383.
    slots: Vec<u16>,
    table: ArcSwap<SlotTable>,
    /// The connection to each Sentinel, in the order of the address' hosts; `None` before the
    /// first.
    sentinels: tokio::sync::Mutex<Vec<Option<Arc<RedisNode>>>>,
    refresh_signal: Notify,
}

/// A new table that is not published yet.
pub(in crate::redis) struct TopologyChange {
    table: SlotTable,
    /// Partitions with a new owner.
    pub(in crate::redis) moved: Vec<Partition>,
    /// Servers that were not connected before.
    pub(in crate::redis) new: Vec<Arc<RedisNode>>,
}

impl ServerTopology {
    pub(in crate::redis) fn new(
        address: RedisAddress,
        timeout: Duration,
        keys: &KeyBuilder,
    ) -> Self {
        let slot =
            |partition| fred::util::redis_keyslot(keys.of_partition(partition, "").as_bytes());
        let sentinels = vec![None; address.hosts.len()];
        Self {
            address,
            timeout,
            partitions: keys.partitions().all().collect(),
            slots: keys.partitions().all().map(slot).collect(),
            table: ArcSwap::default(),
            sentinels: tokio::sync::Mutex::new(sentinels),
            refresh_signal: Notify::new(),
        }
    }

    pub(in crate::redis) fn table(&self) -> Arc<SlotTable> {
        self.table.load_full()
    }

    /// Whether a partition can move to another server: behind Sentinels and in a cluster.
    pub(in crate::redis) fn may_move(&self) -> bool {
        self.address.kind != RedisLayout::One
    }

    pub(in crate::redis) fn is_cluster(&self) -> bool {
        self.address.kind == RedisLayout::Cluster
    }

    pub(super) fn layout(&self) -> &RedisLayout {
        &self.address.kind
    }

    /// The Sentinels that were connected so far.
    pub(super) async fn sentinel_nodes(&self) -> Vec<Arc<RedisNode>> {
        self.sentinels.lock().await.iter().flatten().cloned().collect()
    }

    pub(in crate::redis) fn request_refresh(&self) {
        self.refresh_signal.notify_one();
    }

    pub(in crate::redis) async fn refresh_requested(&self) {
        self.refresh_signal.notified().await;
    }

    /// Records the connections to all owners in the metrics.
    pub(in crate::redis) fn count_connections(&self) {
        let map = self.table();
        let (mut open, mut down, mut waiting) = (0, 0, 0);
        for client in map.nodes().iter().flat_map(|node| node.clients()) {
            open += 1;
            down += u32::from(!client.is_connected());
            waiting += client.command_queue_len();
        }
        Metric::RedisConnections.gauge(&[("state", "open")]).set(open);
        Metric::RedisConnections.gauge(&[("state", "down")]).set(down);
        Metric::RedisCommandsWaiting.gauge(&[]).set(waiting as f64);
    }

    /// Reads the owners; `None` when nothing changed.
    ///
    /// # Errors
    /// When no server reports the owners, or a new owner can't be reached.
    pub(in crate::redis) async fn refresh(&self) -> Result<Option<TopologyChange>, Error> {
        let before = self.table();
        let owners = self.owners(&before).await?;
        let server_of =
            |node: &Option<Arc<RedisNode>>| node.as_ref().map(|node| node.server().clone());
        let unchanged = before.owners().len() == owners.len()
            && before.owners().iter().zip(&owners).all(|(before, now)| server_of(before) == *now);
        if unchanged {
            return Ok(None);
        }
        let mut nodes: HashMap<Server, Arc<RedisNode>> =
            before.nodes().iter().map(|node| (node.server().clone(), node.clone())).collect();
        let mut new = Vec::new();
        let mut owned = Vec::with_capacity(owners.len());
        for server in owners {
            let Some(server) = server else {
                owned.push(None);
                continue;
            };
            if !nodes.contains_key(&server) {
                let node = Arc::new(self.connect_owner(&server).await?);
                new.push(node.clone());
                nodes.insert(server.clone(), node);
            }
            owned.push(nodes.get(&server).cloned());
        }
        let moved = self.moved(&before, &owned);
        let used =
            |node: &Arc<RedisNode>| owned.iter().flatten().any(|owner| Arc::ptr_eq(owner, node));
        let nodes = nodes.into_values().filter(used).collect();
        Ok(Some(TopologyChange { table: SlotTable::new(owned, nodes), moved, new }))
    }

    fn moved(&self, before: &SlotTable, owners: &[Option<Arc<RedisNode>>]) -> Vec<Partition> {
        let same = |(partition, now): &(&Partition, &Option<Arc<RedisNode>>)| match (
            before.owner(**partition),
            now,
        ) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        self.partitions
            .iter()
            .zip(owners)
            .filter(|pair| !same(pair))
            .map(|(partition, _)| *partition)
            .collect()
    }

    /// Makes a new table visible. Servers that own nothing any more are disconnected once no call
    /// uses them.
    pub(in crate::redis) fn publish(&self, change: TopologyChange) {
        self.table.store(Arc::new(change.table));
    }

    /// Connects to a server without reconnecting when the connection ends.
    pub(in crate::redis) async fn connect_pinned(
        &self,
        server: &Server,
    ) -> Result<RedisNode, Error> {
        RedisNode::connect_once(self.address.config(server.clone()), self.timeout).await
    }

    async fn connect_owner(&self, server: &Server) -> Result<RedisNode, Error> {
        let node = RedisNode::connect(self.address.config(server.clone()), self.timeout).await?;
        if let RedisLayout::Sentinel { .. } = self.address.kind {
            // The Sentinels may report a server that was just demoted, or is not promoted yet.
            let role = query(&node, "ROLE", &[]).await?.words()?.text()?;
            if role != "master" {
                return Err(Error::Unavailable(format!(
                    "{server} is not the primary; its role is {role}"
                )));
            }
        }
        Ok(node)
    }

    async fn owners(&self, before: &SlotTable) -> Result<Vec<Option<Server>>, Error> {
        match &self.address.kind {
            RedisLayout::One => Ok(vec![self.address.hosts.first().cloned(); self.slots.len()]),
            RedisLayout::Sentinel { service, .. } => {
                let primary = self.sentinel_primary(service).await?;
                Ok(vec![Some(primary); self.slots.len()])
            }
            RedisLayout::Cluster => {
                let reported = self.cluster_slots(before).await?;
                Ok(self.slots.iter().map(|slot| reported.owner(*slot).cloned()).collect())
            }
        }
    }

    /// The slot owners that the connected nodes report; before any is connected, or when none
    /// answers, those that the hosts of the address report.
    async fn cluster_slots(&self, before: &SlotTable) -> Result<SlotOwners, Error> {
        let mut owners = SlotOwners::new(&self.slots);
        let known: Vec<_> =
            before.nodes().iter().filter(|node| node.is_connected()).cloned().collect();
        let reports = join_all(known.iter().map(|node| cluster_nodes(node))).await;
        reports.into_iter().flatten().for_each(|report| owners.add(&report));
        let mut cause = Error::Unavailable("no node of the cluster answers".into());
        if owners.is_empty() {
            for server in &self.address.hosts {
                match self.query_once(server).await {
                    Ok(report) => owners.add(&report),
                    Err(error) => cause = error,
                }
            }
        }
        if owners.is_empty() { Err(cause) } else { Ok(owners) }
    }

    /// Asks a node over a connection that is closed afterwards.
    async fn query_once(&self, server: &Server) -> Result<(Server, String), Error> {
        let config = self.address.config(server.clone());
        let node = timeout(QUERY_TIMEOUT * 2, RedisNode::connect_once(config, QUERY_TIMEOUT)).await;
        let node = node.map_err(|_| Error::Unavailable(format!("{server} does not answer")))??;
        cluster_nodes(&node).await
    }

    /// The primary that the Sentinels report, by the newest election.
    async fn sentinel_primary(&self, service: &str) -> Result<Server, Error> {
        let mut sentinels = self.sentinels.lock().await;
        let asked = sentinels
            .iter_mut()
            .zip(&self.address.hosts)
            .map(|(slot, host)| self.ask_sentinel(slot, host, service));
        let mut best: Option<(u64, Server)> = None;
        let mut cause = Error::Unavailable("no Sentinel answers".into());
        for report in join_all(asked).await {
            match report {
                Ok((epoch, server)) if best.as_ref().is_none_or(|(known, _)| epoch > *known) => {
                    best = Some((epoch, server));
                }
                Ok(_) => {}
                Err(error) => cause = error,
            }
        }
        best.map(|(_, server)| server).ok_or(cause)
    }

    /// The election's epoch and the primary that one Sentinel reports.
    async fn ask_sentinel(
        &self,
        slot: &mut Option<Arc<RedisNode>>,
        host: &Server,
        service: &str,
    ) -> Result<(u64, Server), Error> {
        let node = match slot {
            Some(node) => node.clone(),
            None => {
                let RedisLayout::Sentinel { credentials, .. } = &self.address.kind else {
                    return Err(Error::Unavailable("the address names no Sentinels".into()));
                };
                let config = self.address.config_with(host.clone(), credentials, None);
                let node =
                    timeout(QUERY_TIMEOUT, RedisNode::connect_single(config, QUERY_TIMEOUT)).await;
                let node = node.map_err(|_| {
                    Error::Unavailable(format!("the Sentinel {host} does not answer"))
                })??;
                slot.insert(Arc::new(node)).clone()
            }
        };
        if !node.is_connected() {
            return Err(Error::Unavailable(format!("the Sentinel {host} does not answer")));
        }
        slot_table::read_primary(query(&node, "SENTINEL", &["MASTER", service]).await?)
    }
}

pub(super) async fn cluster_nodes(node: &RedisNode) -> Result<(Server, String), Error> {
    let text = String::from_utf8(query(node, "CLUSTER", &["NODES"]).await?.bytes()?.into());
    let text = text.map_err(|_| Error::Protocol("CLUSTER NODES is not UTF-8".into()))?;
    Ok((node.server().clone(), text))
}

pub(super) async fn query(
    node: &RedisNode,
    command: &'static str,
    args: &[&str],
) -> Result<ScriptReply, Error> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    let args: Vec<Value> = args.iter().copied().map(Value::from).collect();
    let reply = timeout(QUERY_TIMEOUT, node.client().custom::<Value, _>(command, args)).await;
    let reply =
        reply.map_err(|_| Error::Unavailable(format!("{} does not answer", node.server())))?;
    ScriptReply::try_from(reply?)
}
