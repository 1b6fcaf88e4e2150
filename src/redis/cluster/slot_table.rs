//! The slot table: which server owns which partition, and how the reports of nodes and Sentinels
//! are parsed and merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use fred::types::config::Server;

use super::node::RedisNode;
use crate::partition::Partition;
use crate::redis::{Error, KeyBuilder, ScriptReply};

/// The owners of all partitions at one moment. Immutable: a change publishes a new table.
#[derive(Debug, Default)]
pub(in crate::redis) struct SlotTable {
    owners: Vec<Option<Arc<RedisNode>>>,
    nodes: Vec<Arc<RedisNode>>,
}

impl SlotTable {
    pub(in crate::redis) fn new(
        owners: Vec<Option<Arc<RedisNode>>>,
        nodes: Vec<Arc<RedisNode>>,
    ) -> Self {
        Self { owners, nodes }
    }

    /// The owner of each partition, in order.
    pub(in crate::redis) fn owners(&self) -> &[Option<Arc<RedisNode>>] {
        &self.owners
    }

    pub(in crate::redis) fn owner(&self, partition: Partition) -> Option<&Arc<RedisNode>> {
        self.owners.get(usize::from(partition.get()))?.as_ref()
    }

    /// All servers that own at least one partition.
    pub(in crate::redis) fn nodes(&self) -> &[Arc<RedisNode>] {
        &self.nodes
    }

    pub(in crate::redis) fn partitions_of(
        &self,
        node: &Arc<RedisNode>,
        keys: &KeyBuilder,
    ) -> Vec<Partition> {
        keys.partitions()
            .all()
            .filter(|partition| {
                self.owner(*partition).is_some_and(|owner| Arc::ptr_eq(owner, node))
            })
            .collect()
    }
}

/// The owners of some hash slots, merged from the reports of several nodes: the newest election
/// wins.
#[derive(Debug)]
pub(in crate::redis) struct SlotOwners {
    /// By hash slot: the config epoch of the election, and the owner that it elected.
    slots: BTreeMap<u16, Option<(u64, Server)>>,
}

impl SlotOwners {
    /// Starts without any owner.
    pub(in crate::redis) fn new(slots: &[u16]) -> Self {
        Self { slots: slots.iter().map(|slot| (*slot, None)).collect() }
    }

    /// Merges a node's reply to `CLUSTER NODES`. Each line is one node:
    /// `id host:port@bus[,name] flags primary ping pong config-epoch link slots…`.
    pub(in crate::redis) fn add(&mut self, (reporter, lines): &(Server, String)) {
        for line in lines.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else {
                continue;
            };
            let is = |flag| flags.split(',').any(|it| it == flag);
            let (Ok(epoch), Some(server)) = (epoch.parse::<u64>(), read_address(address, reporter))
            else {
                continue;
            };
            if !is("master") || is("noaddr") || is("handshake") {
                continue;
            }
            // Slots in brackets are being migrated.
            for range in slots.iter().filter(|range| !range.starts_with('[')) {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                if let (Ok(from), Ok(to)) = (from.parse::<u16>(), to.parse::<u16>()) {
                    self.record(from, to, epoch, &server);
                }
            }
        }
    }

    fn record(&mut self, from: u16, to: u16, epoch: u64, server: &Server) {
        if from > to {
            return;
        }
        for (_, known) in self.slots.range_mut(from..=to) {
            if known.as_ref().is_none_or(|(known, _)| *known < epoch) {
                *known = Some((epoch, server.clone()));
            }
        }
    }

    pub(in crate::redis) fn owner(&self, slot: u16) -> Option<&Server> {
        self.slots.get(&slot)?.as_ref().map(|(_, server)| server)
    }

    /// Whether no report named an owner.
    pub(in crate::redis) fn is_empty(&self) -> bool {
        self.slots.values().all(Option::is_none)
    }
}

/// Parses `host:port@bus,name`. A node that does not know its own host leaves it empty.
fn read_address(address: &str, reporter: &Server) -> Option<Server> {
    let address = address.split(['@', ',']).next()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { reporter.host.to_string() } else { host.to_owned() };
    Some(Server::new(host, port.parse().ok().filter(|port| *port > 0)?))
}

/// Reads the config epoch and the primary from a Sentinel's reply to `SENTINEL MASTER`, a list of
/// names and values.
pub(in crate::redis) fn read_primary(reply: ScriptReply) -> Result<(u64, Server), Error> {
    let mut words = reply.words()?;
    let (mut host, mut port, mut epoch) = (None, None, None);
    while !words.is_empty() {
        let (name, value) = (words.text()?, words.text()?);
        match name.as_str() {
            "ip" => host = Some(value),
            "port" => port = value.parse().ok(),
            "config-epoch" => epoch = value.parse().ok(),
            _ => {}
        }
    }
    match (host, port, epoch) {
        (Some(host), Some(port), Some(epoch)) => Ok((epoch, Server::new(host, port))),
        _ => Err(Error::Protocol("a Sentinel reported no primary".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(port: u16, lines: &str) -> (Server, String) {
        (Server::new("10.0.0.1", port), lines.to_owned())
    }

    #[test]
    fn newest_election_wins() {
        let paused = report(
            1,
            "a :1@10001 myself,master - 0 0 1 connected 0-9 [5->-b]\n\
             b 10.0.0.2:2@10002,host master - 0 0 2 connected 10 12-13\n",
        );
        let current = report(
            3,
            "a 10.0.0.1:1@10001 slave c 0 0 7 connected\n\
             c 10.0.0.3:3@10003 myself,master - 0 0 7 connected 0-4 6-9\n\
             b 10.0.0.2:2@10002 master - 0 0 8 connected 5 10 12-13\n\
             d :0@0 master,noaddr - 0 0 9 connected 0-13\n",
        );
        for order in [[&paused, &current], [&current, &paused]] {
            let mut owners = SlotOwners::new(&[0, 5, 11, 13]);
            assert!(owners.is_empty());
            order.into_iter().for_each(|report| owners.add(report));
            let owner =
                |slot| owners.owner(slot).map(|server| format!("{}:{}", server.host, server.port));
            assert_eq!(owner(0).as_deref(), Some("10.0.0.3:3"));
            assert_eq!(owner(5).as_deref(), Some("10.0.0.2:2"));
            assert_eq!(owner(13).as_deref(), Some("10.0.0.2:2"));
            assert_eq!(owner(11), None);
        }
        let mut alone = SlotOwners::new(&[3]);
        alone.add(&paused);
        assert_eq!(
            alone.owner(3),
            Some(&Server::new("10.0.0.1", 1)),
            "an empty host means the host that was asked"
        );
    }

    #[test]
    fn sentinel_reports_a_primary() {
        let words = |words: &[&str]| {
            ScriptReply::List(
                words.iter().map(|word| ScriptReply::Bytes((*word).to_owned().into())).collect(),
            )
        };
        let reply = words(&[
            "name",
            "main",
            "ip",
            "h",
            "port",
            "7",
            "flags",
            "master",
            "config-epoch",
            "3",
        ]);
        assert_eq!(read_primary(reply).unwrap(), (3, Server::new("h", 7)));
        assert!(read_primary(words(&["name", "main"])).is_err());
    }
}
