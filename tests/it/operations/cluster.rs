//! Redis Cluster: the same binary with the same guarantees. For moving slots and failing primaries
//! see `faults/failover.rs`.

use std::time::Duration;

use serde_json::json;
use usher::app::UsherApp;
use usher::config::UsherConfig;
use usher::shutdown::ShutdownSignal;

use crate::support::servers::partition_of_user;
use crate::support::{
    CONCERT, RedisCluster, SCHEDULE, TestStores, TestWorld, eventually, new_key, new_user,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journey_coupons_and_rewards_on_a_cluster() {
    let cluster = RedisCluster::start().await;
    let stores = TestStores::among(cluster.redis_nodes(), None).await;
    let mut args = stores.args();
    args.stores.redis_wait_replicas = Some("1".into());

    // A cluster node is not a standalone Redis, and the error names the right setting.
    let mut alone = args.clone();
    alone.stores.redis_url = Some(format!("redis://127.0.0.1:{}", cluster.ports[0]));
    let refused = UsherApp::build(UsherConfig::new(&alone).unwrap(), ShutdownSignal::new())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("USHER_REDIS_URL must start with redis-cluster://"), "{refused}");

    // The partitions must be on more than one primary for this test.
    let mut owners = std::collections::BTreeSet::new();
    for partition in 0..crate::support::servers::PARTITIONS {
        owners.insert(cluster.owner_of(&stores.key(partition, "epoch")).await.id);
    }
    assert!(owners.len() > 1, "{owners:?}");

    let world = TestWorld::with_args(stores, &[args.clone(), args]).await;
    world.put_show(20, 1_000).await;
    let api = &world.api;
    let mut coupon = crate::coupons::payments::coupon(300, 1_000);
    coupon["total_quantity"] = json!(5);
    api.put("/admin/coupons/off", &coupon).await.expect(200);
    let reward = json!({"title": "Hello", "starts_at": "2020-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z", "active": true,
        "conditions": [], "reward": {"kind": "points", "amount": 1_000}});
    api.put("/admin/rewards/hello", &reward).await.expect(200);
    world.wait_on_every_instance("/v1/coupons/off", |_| true).await;
    world.wait_on_every_instance("/v1/rewards/hello", |_| true).await;
    let buyer = async |seat: u32| {
        let guest = api.active_user(CONCERT).await;
        let claim = api.post("/v1/rewards/hello/claims").user(&guest.user).send().await;
        claim.expect(201);
        let issue = api.post("/v1/coupons/off/issues").user(&guest.user).send().await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
        issue.status
    };
    let issued = futures::future::join_all((1..=10).map(buyer)).await;
    assert_eq!(issued.iter().filter(|status| **status == 201).count(), 5, "{issued:?}");
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.sold.len()), (10, 10));

    // A moved slot: requests go to the old owner and follow the redirect to the new one.
    let user = new_user();
    api.charge(&user, 5).await;
    let key = world.stores.key(partition_of_user(&user), "wallets");
    let before = cluster.owner_of(&key).await;
    cluster.move_slot(&key, Duration::ZERO).await;
    assert_ne!(cluster.owner_of(&key).await.id, before.id);
    for at in 0..2 {
        let api = api.for_instance(at);
        eventually("the wallet is read from its new node", || async {
            let key = new_key();
            (api.charge_with_key(&user, 1, &key).await.status == 201).then_some(())
        })
        .await;
    }
    assert_eq!(api.balance(&user).await, 7);
    world.stores.audit().await;
}
