//! A primary with two replicas behind Sentinels: an answered write survives the promotion of either
//! replica when the writes wait for both, and an instance warns when they do not.

use std::time::Duration;

use crate::support::resp::RespClient;
use crate::support::{
    ELECTION_TIMEOUT, SentinelGroup, TestStores, TestWorld, UsherProcess, eventually, new_key,
    new_user, within,
};

/// The gauge of an instance, once it is set.
async fn unawaited_replicas(process: &UsherProcess) -> f64 {
    eventually("the replicas are counted", || async {
        let metrics = reqwest::get(format!("{}/metrics", process.admin)).await.ok()?;
        let text = metrics.text().await.ok()?;
        let line = text.lines().find_map(|it| it.strip_prefix("usher_redis_unawaited_replicas "));
        line?.trim().parse().ok()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_warns_when_writes_wait_for_one_of_two_replicas() {
    let sentinels = SentinelGroup::start_with("1", 2).await;
    let stores = TestStores::among(sentinels.redis_nodes(), None).await;
    let wait = |count: &str| [("USHER_REDIS_WAIT_REPLICAS", count.to_owned())];
    let process = UsherProcess::start_with(&stores, &wait("1")).await;
    eventually("the missing wait is counted", || async {
        (unawaited_replicas(&process).await == 1.0).then_some(())
    })
    .await;
    assert!(process.log().contains("a failover may lose answered writes"), "{}", process.log());

    // A replica that is never promoted does not count.
    let primary = sentinels.primary().await.unwrap();
    let ineligible = sentinels.others(primary).next().unwrap();
    let mut replica = RespClient::connect(ineligible).await;
    replica.ask(&["CONFIG", "SET", "replica-priority", "0"]).await;
    within(ELECTION_TIMEOUT, "the Sentinels know its priority", || async {
        (unawaited_replicas(&process).await == 0.0).then_some(())
    })
    .await;
    process.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_replica_has_every_answered_write() {
    let sentinels = SentinelGroup::start_with("1", 2).await;
    let stores = TestStores::among(sentinels.redis_nodes(), None).await;
    let mut args = stores.args();
    args.stores.redis_wait_replicas = Some("2".into());
    let world = TestWorld::with_args(stores, &[args.clone(), args]).await;
    let user = new_user();
    let charge = async |amount: i64, key: &str| {
        within(ELECTION_TIMEOUT, "the charge is confirmed", || async {
            (world.api.charge_with_key(&user, amount, key).await.status == 201).then_some(())
        })
        .await;
    };
    charge(100, &new_key()).await;

    // One replica receives nothing. A write that only the other one has is not answered as done.
    let first = sentinels.primary().await.unwrap();
    let [lagging, current]: [u16; 2] =
        sentinels.others(first).collect::<Vec<_>>().try_into().unwrap();
    sentinels.freeze(lagging, true).await;
    RespClient::connect(first).await.ask(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    eventually("the other replica is connected again", || async {
        let mut primary = RespClient::connect(first).await;
        let info = primary.ask(&["INFO", "replication"]).await.text();
        let online = format!("port={current},state=online");
        info.contains(&online).then_some(())
    })
    .await;
    let key = new_key();
    let asked = world.api.charge_with_key(&user, 50, &key).await;
    asked.problem(503, "store_unavailable");

    // The lagging replica is promoted: the current one can't be reached, and the primary is dead.
    sentinels.freeze(current, true).await;
    sentinels.kill(first).await;
    sentinels.freeze(lagging, false).await;
    sentinels.wait_until_replaced(first).await;
    assert_eq!(sentinels.primary().await, Some(lagging));
    sentinels.freeze(current, false).await;
    sentinels.restart(first).await;
    sentinels.wait_until_healthy().await;
    charge(50, &key).await;
    // The answered charge is kept, and the repeated one is made once.
    assert_eq!(world.api.balance(&user).await, 150);
    tokio::time::timeout(Duration::from_secs(60), world.stores.audit()).await.unwrap();
}
