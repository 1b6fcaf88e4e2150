//! What nodes say of their cluster, and Sentinels of their service, put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use fred::types::config::Server;

use super::node::RedisNode;
use crate::partition::Partition;
use crate::redis::{Error, KeyBuilder, ScriptReply};

/// Who holds what, at one moment.
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

    /// The server that holds a partition.
    pub(in crate::redis) fn owner(&self, partition: Partition) -> Option<&Arc<RedisNode>> {
        self.owners.get(usize::from(partition.get()))?.as_ref()
    }

    /// All servers that hold something.
    pub(in crate::redis) fn nodes(&self) -> &[Arc<RedisNode>] {
        &self.nodes
    }

    /// The partitions of a server.
    pub(in crate::redis) fn held_by(
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

/// Who owns some slots, by the newest of all elections that anybody knows of.
#[derive(Debug)]
pub(in crate::redis) struct SlotOwners {
    /// By the slots' numbers: the election, and the owner that came out of it.
    slots: BTreeMap<u16, Option<(u64, Server)>>,
}

impl SlotOwners {
    /// Of these slots nothing is known yet.
    pub(in crate::redis) fn of(slots: &[u16]) -> Self {
        Self { slots: slots.iter().map(|slot| (*slot, None)).collect() }
    }

    /// Takes in what a node answers to `CLUSTER NODES`:
    /// `id host:port@bus[,name] flags primary ping pong config-epoch link slots…`, a line a node.
    pub(in crate::redis) fn add(&mut self, (said_by, lines): &(Server, String)) {
        for line in lines.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else {
                continue;
            };
            let is = |flag| flags.split(',').any(|it| it == flag);
            let (Ok(epoch), Some(server)) = (epoch.parse::<u64>(), read_address(address, said_by))
            else {
                continue;
            };
            if !is("master") || is("noaddr") || is("handshake") {
                continue;
            }
            // In brackets stand slots that are on their way.
            for range in slots.iter().filter(|range| !range.starts_with('[')) {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                if let (Ok(from), Ok(to)) = (from.parse::<u16>(), to.parse::<u16>()) {
                    self.claim(from, to, epoch, &server);
                }
            }
        }
    }

    fn claim(&mut self, from: u16, to: u16, epoch: u64, server: &Server) {
        if from > to {
            return;
        }
        for (_, known) in self.slots.range_mut(from..=to) {
            if known.as_ref().is_none_or(|(known, _)| *known < epoch) {
                *known = Some((epoch, server.clone()));
            }
        }
    }

    /// The owner of a slot.
    pub(in crate::redis) fn owner(&self, slot: u16) -> Option<&Server> {
        self.slots.get(&slot)?.as_ref().map(|(_, server)| server)
    }

    /// Whether nobody has told of any slot.
    pub(in crate::redis) fn is_empty(&self) -> bool {
        self.slots.values().all(Option::is_none)
    }
}

/// `host:port@bus,name`; a node that does not know its own host leaves it out.
fn read_address(address: &str, said_by: &Server) -> Option<Server> {
    let address = address.split(['@', ',']).next()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { said_by.host.to_string() } else { host.to_owned() };
    Some(Server::new(host, port.parse().ok().filter(|port| *port > 0)?))
}

/// What a Sentinel answers to `SENTINEL MASTER`: pairs of names and values. Gives the election and the primary.
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
        _ => Err(Error::Protocol("a Sentinel names no primary".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(port: u16, lines: &str) -> (Server, String) {
        (Server::new("10.0.0.1", port), lines.to_owned())
    }

    #[test]
    fn the_newest_election_is_believed() {
        let asleep = told(
            1,
            "a :1@10001 myself,master - 0 0 1 connected 0-9 [5->-b]\nb 10.0.0.2:2@10002,host master - 0 0 2 connected 10 12-13\n",
        );
        let awake = told(
            3,
            "a 10.0.0.1:1@10001 slave c 0 0 7 connected\nc 10.0.0.3:3@10003 myself,master - 0 0 7 connected 0-4 6-9\nb 10.0.0.2:2@10002 master - 0 0 8 connected 5 10 12-13\nd :0@0 master,noaddr - 0 0 9 connected 0-13\n",
        );
        for order in [[&asleep, &awake], [&awake, &asleep]] {
            let mut roll = SlotOwners::of(&[0, 5, 11, 13]);
            assert!(roll.is_empty());
            order.into_iter().for_each(|told| roll.add(told));
            let owner =
                |slot| roll.owner(slot).map(|server| format!("{}:{}", server.host, server.port));
            assert_eq!(owner(0).as_deref(), Some("10.0.0.3:3"));
            assert_eq!(owner(5).as_deref(), Some("10.0.0.2:2"));
            assert_eq!(owner(13).as_deref(), Some("10.0.0.2:2"));
            assert_eq!(owner(11), None);
        }
        let mut alone = SlotOwners::of(&[3]);
        alone.add(&asleep);
        assert_eq!(
            alone.owner(3),
            Some(&Server::new("10.0.0.1", 1)),
            "its own host is the one that was asked"
        );
    }

    #[test]
    fn a_sentinel_names_a_primary() {
        let words = |words: &[&str]| {
            ScriptReply::List(
                words.iter().map(|word| ScriptReply::Bytes((*word).to_owned().into())).collect(),
            )
        };
        let told = words(&[
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
        assert_eq!(read_primary(told).unwrap(), (3, Server::new("h", 7)));
        assert!(read_primary(words(&["name", "main"])).is_err());
    }
}
