//! Electable replicas: those that Sentinels, a cluster or an operator may promote.
//!
//! A replica that is down counts, because it may be promoted when it is back. One with priority 0,
//! or that a cluster never promotes, does not count.

use fred::interfaces::ClientLike;
use fred::types::InfoKind;
use futures::future::join_all;

use super::ServerTopology;
use super::topology::{cluster_nodes, query};
use crate::redis::address::RedisLayout;
use crate::redis::memory::field;
use crate::redis::{Error, ScriptReply};

impl ServerTopology {
    /// The highest number of electable replicas that a primary has.
    ///
    /// # Errors
    /// When no server reports its replicas.
    pub(in crate::redis) async fn electable_replicas(&self) -> Result<u32, Error> {
        let table = self.table();
        let reports: Vec<Result<u32, Error>> = match self.layout() {
            RedisLayout::One => {
                let infos = table.nodes().iter().map(async |node| {
                    let info: String = node.client().info(Some(InfoKind::Replication)).await?;
                    let count = field(&info, "connected_slaves").and_then(|text| text.parse().ok());
                    Ok(count.unwrap_or(0))
                });
                join_all(infos).await
            }
            RedisLayout::Sentinel { service, .. } => {
                let sentinels = self.sentinel_nodes().await;
                let reports = sentinels.iter().map(async |node| {
                    count_with_priority(query(node, "SENTINEL", &["REPLICAS", service]).await?)
                });
                join_all(reports).await
            }
            RedisLayout::Cluster => {
                let reports = table.nodes().iter().map(async |node| {
                    let (_, lines) = cluster_nodes(node).await?;
                    Ok(count_in_cluster(&lines))
                });
                join_all(reports).await
            }
        };
        let mut cause = Error::Unavailable("no server reports its replicas".into());
        let mut highest = None;
        for report in reports {
            match report {
                Ok(count) => highest = highest.max(Some(count)),
                Err(error) => cause = error,
            }
        }
        highest.ok_or(cause)
    }
}

/// Counts in the reply to `SENTINEL REPLICAS`: for each replica a list of names and values.
fn count_with_priority(reply: ScriptReply) -> Result<u32, Error> {
    let mut count = 0;
    let mut replicas = reply.words()?;
    while !replicas.is_empty() {
        let (mut words, mut is_electable) = (replicas.word()?.words()?, true);
        while !words.is_empty() {
            let (name, value) = (words.text()?, words.text()?);
            is_electable &= name != "slave-priority" || value != "0";
        }
        count += u32::from(is_electable);
    }
    Ok(count)
}

/// Counts the replicas of the node that reports, in its reply to `CLUSTER NODES`. The format of a
/// line is described in `slot_table`.
fn count_in_cluster(lines: &str) -> u32 {
    let nodes: Vec<(&str, Vec<&str>, &str)> = lines
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (id, _, flags, primary) =
                (words.next()?, words.next()?, words.next()?, words.next()?);
            Some((id, flags.split(',').collect(), primary))
        })
        .collect();
    let Some((own, ..)) = nodes.iter().find(|(_, flags, _)| flags.contains(&"myself")) else {
        return 0;
    };
    let is_electable = |flags: &[&str]| {
        flags.contains(&"slave") && !flags.contains(&"nofailover") && !flags.contains(&"noaddr")
    };
    let counted = nodes.iter().filter(|(_, flags, primary)| primary == own && is_electable(flags));
    u32::try_from(counted.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_counts_replicas_that_it_may_promote() {
        let lines = "a 127.0.0.1:1@11 myself,master - 0 0 1 connected 0-5460\n\
                     b 127.0.0.1:2@12 slave a 0 0 1 connected\n\
                     c 127.0.0.1:3@13 slave,fail a 0 0 1 disconnected\n\
                     d 127.0.0.1:4@14 slave,nofailover a 0 0 1 connected\n\
                     e 127.0.0.1:5@15 master - 0 0 2 connected 5461-16383\n\
                     f 127.0.0.1:6@16 slave e 0 0 2 connected\n";
        assert_eq!(count_in_cluster(lines), 2);
        assert_eq!(count_in_cluster(""), 0);
    }
}
