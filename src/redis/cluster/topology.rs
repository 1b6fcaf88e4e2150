//! Which server holds which partition: one for all, the primary that Sentinels name, or the owners of a cluster's slots.
//!
//! A look asks everybody who should know and believes the newest election (`config-epoch`), so that a primary that was asleep, and still takes itself for
//! one, is not believed. What changed hands is in doubt *before* the new map is seen, so nothing is sent to an owner that was not verified
//! for that partition (`trust.rs`). A slot that is being moved has two owners; its partition waits until it has one again.

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

/// How long whoever is asked for the owners may take.
const TOLD_WITHIN: Duration = Duration::from_millis(500);

/// The servers.
#[derive(Debug)]
pub(in crate::redis) struct ServerTopology {
    address: RedisAddress,
    timeout: Duration,
    partitions: Vec<Partition>,
    /// The number of each partition's slot in a cluster.
    slots: Vec<u16>,
    map: ArcSwap<SlotTable>,
    /// Whoever knows the primary, by their place among the address' hosts.
    sentinels: tokio::sync::Mutex<Vec<Option<Arc<RedisNode>>>>,
    wake: Notify,
}

/// A map that is not seen yet.
pub(in crate::redis) struct TopologyChange {
    map: SlotTable,
    /// Partitions that another server holds than before.
    pub(in crate::redis) moved: Vec<Partition>,
    /// Servers that were not known before.
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
            map: ArcSwap::default(),
            sentinels: tokio::sync::Mutex::new(sentinels),
            wake: Notify::new(),
        }
    }

    /// Who holds what.
    pub(in crate::redis) fn map(&self) -> Arc<SlotTable> {
        self.map.load_full()
    }

    /// Whether what it holds can come to be held by another server.
    pub(in crate::redis) fn may_move(&self) -> bool {
        self.address.kind != RedisLayout::One
    }

    /// Whether this is a cluster.
    pub(in crate::redis) fn is_cluster(&self) -> bool {
        self.address.kind == RedisLayout::Cluster
    }

    /// Has somebody look.
    pub(in crate::redis) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until somebody wants it to be looked.
    pub(in crate::redis) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Tells the metrics of the connections to those that hold something.
    pub(in crate::redis) fn count_connections(&self) {
        let map = self.map();
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

    /// Looks who holds what now. Gives nothing when nothing has changed.
    ///
    /// # Errors
    /// When nobody tells, or a server that holds something can't be reached.
    pub(in crate::redis) async fn look(&self) -> Result<Option<TopologyChange>, Error> {
        let before = self.map();
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
        let mut held = Vec::with_capacity(owners.len());
        for server in owners {
            let Some(server) = server else {
                held.push(None);
                continue;
            };
            if !nodes.contains_key(&server) {
                let node = Arc::new(self.reach(&server).await?);
                new.push(node.clone());
                nodes.insert(server.clone(), node);
            }
            held.push(nodes.get(&server).cloned());
        }
        let moved = self.moved(&before, &held);
        let used =
            |node: &Arc<RedisNode>| held.iter().flatten().any(|owner| Arc::ptr_eq(owner, node));
        let nodes = nodes.into_values().filter(used).collect();
        Ok(Some(TopologyChange { map: SlotTable::new(held, nodes), moved, new }))
    }

    /// The partitions that another server holds than before.
    fn moved(&self, before: &SlotTable, held: &[Option<Arc<RedisNode>>]) -> Vec<Partition> {
        let same = |(partition, now): &(&Partition, &Option<Arc<RedisNode>>)| match (
            before.owner(**partition),
            now,
        ) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        self.partitions
            .iter()
            .zip(held)
            .filter(|pair| !same(pair))
            .map(|(partition, _)| *partition)
            .collect()
    }

    /// Lets everybody see a map. Servers that hold nothing any more are let go.
    pub(in crate::redis) fn publish(&self, change: TopologyChange) {
        self.map.store(Arc::new(change.map));
    }

    /// A connection to a server that is not made again.
    pub(in crate::redis) async fn reach_once(&self, server: &Server) -> Result<RedisNode, Error> {
        RedisNode::connect_once(self.address.config(server.clone()), self.timeout).await
    }

    async fn reach(&self, server: &Server) -> Result<RedisNode, Error> {
        let node = RedisNode::connect(self.address.config(server.clone()), self.timeout).await?;
        if let RedisLayout::Sentinel { .. } = self.address.kind {
            // One that was named just before it was demoted, or is not promoted yet.
            let role = ask(&node, "ROLE", &[]).await?.words()?.text()?;
            if role != "master" {
                return Err(Error::Unavailable(format!("{server} is no primary but a {role}")));
            }
        }
        Ok(node)
    }

    async fn owners(&self, before: &SlotTable) -> Result<Vec<Option<Server>>, Error> {
        match &self.address.kind {
            RedisLayout::One => Ok(vec![self.address.hosts.first().cloned(); self.slots.len()]),
            RedisLayout::Sentinel { service, .. } => {
                let primary = self.primary(service).await?;
                Ok(vec![Some(primary); self.slots.len()])
            }
            RedisLayout::Cluster => {
                let roll = self.roll(before).await?;
                Ok(self.slots.iter().map(|slot| roll.owner(*slot).cloned()).collect())
            }
        }
    }

    /// What the nodes that answer say of the cluster; before any is known, those of the address.
    async fn roll(&self, before: &SlotTable) -> Result<SlotOwners, Error> {
        let mut roll = SlotOwners::of(&self.slots);
        let known: Vec<_> = before.nodes().iter().filter(|node| node.answers()).cloned().collect();
        let told = join_all(known.iter().map(|node| tell_of_cluster(node))).await;
        told.into_iter().flatten().for_each(|told| roll.add(&told));
        let mut why = Error::Unavailable("no node of the cluster answers".into());
        if roll.is_empty() {
            for server in &self.address.hosts {
                match self.passing(server).await {
                    Ok(told) => roll.add(&told),
                    Err(error) => why = error,
                }
            }
        }
        if roll.is_empty() { Err(why) } else { Ok(roll) }
    }

    /// Asks a node that is not kept.
    async fn passing(&self, server: &Server) -> Result<(Server, String), Error> {
        let config = self.address.config(server.clone());
        let node = timeout(TOLD_WITHIN * 2, RedisNode::connect_once(config, TOLD_WITHIN)).await;
        let node = node.map_err(|_| Error::Unavailable(format!("{server} does not answer")))??;
        tell_of_cluster(&node).await
    }

    /// The primary that the Sentinels name.
    async fn primary(&self, service: &str) -> Result<Server, Error> {
        let mut sentinels = self.sentinels.lock().await;
        let asked = sentinels
            .iter_mut()
            .zip(&self.address.hosts)
            .map(|(slot, host)| self.named(slot, host, service));
        let mut best: Option<(u64, Server)> = None;
        let mut why = Error::Unavailable("no Sentinel answers".into());
        for told in join_all(asked).await {
            match told {
                Ok((epoch, server)) if best.as_ref().is_none_or(|(known, _)| epoch > *known) => {
                    best = Some((epoch, server));
                }
                Ok(_) => {}
                Err(error) => why = error,
            }
        }
        best.map(|(_, server)| server).ok_or(why)
    }

    /// Whom one Sentinel names, and by which election.
    async fn named(
        &self,
        slot: &mut Option<Arc<RedisNode>>,
        host: &Server,
        service: &str,
    ) -> Result<(u64, Server), Error> {
        let node = match slot {
            Some(node) => node.clone(),
            None => {
                let RedisLayout::Sentinel { credentials, .. } = &self.address.kind else {
                    return Err(Error::Unavailable("no Sentinels are named".into()));
                };
                let config = self.address.config_with(host.clone(), credentials, None);
                let node =
                    timeout(TOLD_WITHIN, RedisNode::connect_to_ask(config, TOLD_WITHIN)).await;
                let node = node.map_err(|_| {
                    Error::Unavailable(format!("the Sentinel {host} does not answer"))
                })??;
                slot.insert(Arc::new(node)).clone()
            }
        };
        if !node.answers() {
            return Err(Error::Unavailable(format!("the Sentinel {host} does not answer")));
        }
        slot_table::read_primary(ask(&node, "SENTINEL", &["MASTER", service]).await?)
    }
}

async fn tell_of_cluster(node: &RedisNode) -> Result<(Server, String), Error> {
    let text = String::from_utf8(ask(node, "CLUSTER", &["NODES"]).await?.bytes()?.into());
    let text = text.map_err(|_| Error::Protocol("CLUSTER NODES is not UTF-8".into()))?;
    Ok((node.server().clone(), text))
}

async fn ask(node: &RedisNode, command: &'static str, args: &[&str]) -> Result<ScriptReply, Error> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    let args: Vec<Value> = args.iter().copied().map(Value::from).collect();
    let answer = timeout(TOLD_WITHIN, node.client().custom::<Value, _>(command, args)).await;
    let answer =
        answer.map_err(|_| Error::Unavailable(format!("{} does not answer", node.server())))?;
    ScriptReply::try_from(answer?)
}
