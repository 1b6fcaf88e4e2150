//! The cluster of the fault tests moves slots, also while primaries are demoted.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::resp::RespClient;
use crate::support::{ELECTION_TIMEOUT, RedisCluster, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_moves_although_primaries_are_demoted() {
    let cluster = RedisCluster::start().await;
    let keys: Vec<_> = (0..40).map(|number| format!("{{slot}}{number}")).collect();
    let mut redis = RespClient::among(&cluster.ports, true).await;
    for key in &keys {
        redis.ask(&["SET", key, "value"]).await;
    }
    let before = cluster.owner_of(&keys[0]).await;
    // The second half of the nodes are the replicas. Each takes over from its primary.
    let replicas = &cluster.ports[cluster.ports.len() / 2..];
    let demote = async {
        for port in replicas {
            within(ELECTION_TIMEOUT, "the replica takes over", || async {
                let mut node = RespClient::connect(*port).await;
                // A primary refuses, and a lost election is repeated.
                node.try_command(&["CLUSTER", "FAILOVER"]).await;
                sleep(Duration::from_millis(300)).await;
                let role = node.ask(&["ROLE"]).await.list().swap_remove(0);
                (role.text() == "master").then_some(())
            })
            .await;
        }
    };
    tokio::join!(cluster.move_slot(&keys[0], Duration::from_millis(200)), demote);
    cluster.wait_until_healthy().await;
    let after = cluster.owner_of(&keys[0]).await;
    assert_ne!(after.port, before.port);
    assert!(replicas.contains(&after.port), "{after:?}");
    let mut redis = RespClient::among(&cluster.ports, true).await;
    for key in &keys {
        assert_eq!(redis.ask(&["GET", key]).await.text(), "value", "{key}");
    }
}
