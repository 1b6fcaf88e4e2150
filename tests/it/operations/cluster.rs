//! Redis Cluster: the same binary, the same promises. How it fares while slots move and primaries die stands in `faults/failover.rs`.

use std::time::Duration;

use serde_json::json;
use usher::app::UsherApp;
use usher::config::UsherConfig;
use usher::shutdown::ShutdownSignal;

use crate::support::{Cluster, NIGHT, SHOW, Stores, World, eventually, new_key, new_user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journey_and_the_giveaways_on_a_cluster() {
    let cluster = Cluster::start().await;
    let stores = Stores::among(cluster.several(), None).await;
    let mut args = stores.args();
    args.stores.redis_wait_replicas = Some("1".into());

    // A node of a cluster is not a Redis of its own, and whoever says so is told what to say.
    let mut alone = args.clone();
    alone.stores.redis_url = Some(format!("redis://127.0.0.1:{}", cluster.ports[0]));
    let refused = UsherApp::build(UsherConfig::new(&alone).unwrap(), ShutdownSignal::new())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("USHER_REDIS_URL must be redis-cluster://"), "{refused}");

    // Partitions stand on more than one primary, or this would show nothing.
    let mut owners = std::collections::BTreeSet::new();
    for partition in 0..crate::support::servers::PARTITIONS {
        owners.insert(cluster.owner_of(&stores.key(partition, "epoch")).await.id);
    }
    assert!(owners.len() > 1, "{owners:?}");

    let world = World::with_args(stores, &[args.clone(), args]).await;
    world.show(20, 1_000).await;
    let api = &world.api;
    let mut coupon = crate::coupons::payments::coupon(300, 1_000);
    coupon["total_quantity"] = json!(5);
    api.put("/admin/coupons/off", &coupon).await.expect(200);
    let reward = json!({"title": "Hello", "starts_at": "2020-01-01T00:00:00Z", "ends_at": "2100-01-01T00:00:00Z", "active": true,
        "conditions": [], "reward": {"kind": "points", "amount": 1_000}});
    api.put("/admin/rewards/hello", &reward).await.expect(200);
    world.everywhere("/v1/coupons/off", |_| true).await;
    world.everywhere("/v1/rewards/hello", |_| true).await;
    let buyer = async |seat: u32| {
        let guest = api.active_guest(SHOW).await;
        let claim = api.post("/v1/rewards/hello/claims").user(&guest.user).send().await;
        claim.expect(201);
        let issue = api.post("/v1/coupons/off/issues").user(&guest.user).send().await;
        let reservation = api.held(&guest.token, NIGHT, &[seat]).await;
        api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
        issue.status
    };
    let issued = futures::future::join_all((1..=10).map(buyer)).await;
    assert_eq!(issued.iter().filter(|status| **status == 201).count(), 5, "{issued:?}");
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.sold.len()), (10, 10));

    // A slot that has moved: asked for under its old owner, found under its new one.
    let user = new_user();
    api.charge(&user, 5).await;
    let key = world.stores.key(world.stores.partition_of_user(&user), "wallets");
    let before = cluster.owner_of(&key).await;
    cluster.move_slot(&key, Duration::ZERO).await;
    assert_ne!(cluster.owner_of(&key).await.id, before.id);
    for at in 0..2 {
        let api = api.only(at);
        eventually("the wallet is found where it is now", || async {
            let key = new_key();
            (api.charge_as(&user, 1, &key).await.status == 201).then_some(())
        })
        .await;
    }
    assert_eq!(api.balance(&user).await, 7);
    world.stores.audit().await;
}
