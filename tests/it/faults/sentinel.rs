//! Sentinels: a lagging replica, and a primary that returns after its replacement. For failovers
//! under load see `faults/failover.rs`.

use crate::support::resp::RespClient;
use crate::support::{
    ELECTION_TIMEOUT, SentinelGroup, TestStores, TestWorld, new_key, new_user, within,
};

/// Repeats a charge with one key until every instance confirms it.
async fn charged(world: &TestWorld, user: &str, amount: i64, key: &str) {
    within(ELECTION_TIMEOUT, "the charge is confirmed", || async {
        (world.api.charge_with_key(user, amount, key).await.status == 201).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lagging_replica_takes_over_without_losing_confirmed_writes() {
    let sentinels = SentinelGroup::start("0").await;
    let stores = TestStores::among(sentinels.redis_nodes(), None).await;
    let mut args = stores.args();
    args.stores.redis_wait_replicas = Some("1".into());
    let world = TestWorld::with_args(stores, &[args.clone(), args]).await;
    let (user, other, key) = (new_user(), new_user(), new_key());
    charged(&world, &user, 100, &new_key()).await;
    world.stores.audit().await;

    // The replica is frozen and its connection is cut: writes that it lacks are neither confirmed
    // nor written to MySQL.
    let first = sentinels.primary().await.unwrap();
    let second = sentinels.other(first);
    sentinels.freeze(second, true).await;
    RespClient::connect(first).await.ask(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    world.api.charge_with_key(&other, 50, &key).await.problem(503, "store_unavailable");
    let written = "SELECT COUNT(*) FROM wallet_entries WHERE amount = 50";
    assert_eq!(world.stores.count(written).await, 0);

    // It replaces the primary, without the writes that only that one had.
    sentinels.kill(first).await;
    sentinels.freeze(second, false).await;
    sentinels.wait_until_replaced(first).await;
    assert_eq!(sentinels.primary().await, Some(second));
    within(ELECTION_TIMEOUT, "the new primary is found and lacks the charge", || async {
        let balance = world.api.get("/v1/wallet").user(&other).send().await;
        (balance.status == 200).then(|| assert_eq!(balance.body["balance"], 0))
    })
    .await;

    // The old primary returns with its extra writes and becomes a replica.
    sentinels.restart(first).await;
    sentinels.wait_until_healthy().await;
    charged(&world, &other, 50, &key).await;
    assert_eq!(world.api.balance(&other).await, 50);
    assert_eq!(world.api.balance(&user).await, 100);
    let facts = world.stores.audit().await;
    assert_eq!(facts.wallets.values().sum::<i64>(), 150);
    assert_eq!(world.stores.count(written).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn former_primary_is_not_trusted_after_it_resumes() {
    // Settings as in docs/redis.md.
    let sentinels = SentinelGroup::start("1").await;
    let stores = TestStores::among(sentinels.redis_nodes(), None).await;
    let mut args = stores.args();
    args.stores.redis_wait_replicas = Some("1".into());
    let world = TestWorld::with_args(stores, &[args.clone(), args]).await;
    let user = new_user();
    charged(&world, &user, 100, &new_key()).await;

    let first = sentinels.primary().await.unwrap();
    sentinels.freeze(first, true).await;
    let key = new_key();
    let asked = world.api.charge_with_key(&user, 7, &key);
    let (asked, ()) = tokio::join!(asked, sentinels.wait_until_replaced(first));
    // The outcome of a charge in progress is unknown, and it was not confirmed.
    assert_eq!(asked.status, 503, "{asked:?}");
    within(ELECTION_TIMEOUT, "the new primary receives requests", || async {
        (world.api.get("/v1/wallet").user(&user).send().await.status == 200).then_some(())
    })
    .await;

    // It resumes, acts as a primary until the Sentinels demote it, and may execute commands that
    // were in its buffers.
    sentinels.freeze(first, false).await;
    sentinels.wait_until_healthy().await;
    charged(&world, &user, 7, &key).await;
    assert_eq!(world.api.balance(&user).await, 107);
    let facts = world.stores.audit().await;
    assert_eq!(facts.wallets.values().sum::<i64>(), 107);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_behind_mysql_is_restored_before_it_serves() {
    let sentinels = SentinelGroup::start("0").await;
    let stores = TestStores::among(sentinels.redis_nodes(), None).await;
    // Without a wait for replicas MySQL may have more than the replica.
    let world = TestWorld::on(stores, 2).await;
    let (user, other) = (new_user(), new_user());
    charged(&world, &user, 100, &new_key()).await;
    world.stores.audit().await;
    let first = sentinels.primary().await.unwrap();
    let second = sentinels.other(first);
    // As if it had been a primary before: missing scripts do not protect it.
    let mut replica = RespClient::connect(second).await;
    for script in usher::redis::scripts::ALL {
        replica.ask(&["SCRIPT", "LOAD", script.body()]).await;
    }
    sentinels.freeze(second, true).await;
    RespClient::connect(first).await.ask(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    charged(&world, &other, 50, &new_key()).await;
    within(ELECTION_TIMEOUT, "MySQL has what the replica lacks", || async {
        let written = "SELECT COUNT(*) FROM wallet_entries WHERE amount = 50";
        (world.stores.count(written).await == 1).then_some(())
    })
    .await;

    sentinels.kill(first).await;
    sentinels.freeze(second, false).await;
    // Many requests at all times, so that one of them would see the stale state if it were served
    // for a moment.
    let asked = (0..40).map(async |nth: usize| {
        tokio::time::sleep(std::time::Duration::from_millis(5 * nth as u64)).await;
        let api = world.api.for_instance(nth % 2);
        let (of, balance) = if nth < 30 { (&other, 50) } else { (&user, 100) };
        within(ELECTION_TIMEOUT, "the wallet is served again", || async {
            let reported = api.get("/v1/wallet").user(of).send().await;
            (reported.status == 200).then(|| assert_eq!(reported.body["balance"], balance))
        })
        .await;
    });
    futures::future::join_all(asked).await;
    sentinels.restart(first).await;
    sentinels.wait_until_healthy().await;
    assert_eq!(world.stores.audit().await.wallets.values().sum::<i64>(), 150);
}
