//! MySQL loses its last transactions, and Redis has everything: the writer heals MySQL, and nothing
//! is sold before it has.

use futures::future::join_all;

use crate::recovery::restore::{
    assert_replays, buyer, generations, open_sale, recover, wait_until_serving,
};
use crate::support::servers::{PARTITIONS, partition_of_user};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestStores, TestWorld, eventually, new_key, new_user,
};

/// Sales whose facts later events change: a seat that is cancelled and sold to another user, a
/// coupon that is returned, facts that are set twice.
async fn sell_cancel_and_sell_again(api: &ApiClient, seat: u32) {
    let first = buyer(api, seat, true).await;
    let cancel = format!("/v1/reservations/{}/cancel", first.reservation);
    api.post(&cancel).user(&first.guest.user).key(&new_key()).send().await.expect(200);
    buyer(api, seat, false).await;
    for value in [1, 2] {
        let facts = format!("/admin/users/{}/facts", first.guest.user);
        api.put(&facts, &serde_json::json!({"level": value})).await.expect(200);
    }
}

pub(crate) async fn wait_until_mysql_has_everything(stores: &TestStores) {
    eventually("MySQL has everything again", || async {
        let mut redis = stores.redis().await;
        for partition in 0..PARTITIONS {
            let seq = redis.ask(&["GET", &stores.key(partition, "seq")]).await;
            let select = "SELECT n FROM outbox_checkpoints WHERE partition_id = ?";
            let n: u64 =
                sqlx::query_scalar(select).bind(partition).fetch_one(&stores.mysql).await.unwrap();
            if seq != crate::support::resp::RespValue::Nil && seq.int().unsigned_abs() != n {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_partitions_heal_a_mysql_that_went_back() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    open_sale(&world, 40).await;
    let (api, stores) = (&world.api, &world.stores);
    let mut buyers = join_all((1..=4).map(|seat| buyer(api, seat, seat % 2 == 0))).await;
    stores.audit().await;
    let copy = stores.copy_mysql().await;
    buyers.extend(join_all((5..=8).map(|seat| buyer(api, seat, seat % 2 == 0))).await);
    join_all((9..=12).map(|seat| sell_cancel_and_sell_again(api, seat))).await;
    let facts = stores.audit().await;
    let had = generations(stores).await;

    assert!(stores.take_mysql_back(&copy).await);
    // No request follows: the partitions are quiet.
    wait_until_mysql_has_everything(stores).await;
    wait_until_serving(api).await;
    assert_eq!(stores.audit().await, facts);
    assert_eq!(generations(stores).await, had, "no partition was restored");
    join_all(buyers.iter().map(|buyer| assert_replays(api, buyer))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_partitions_heal_a_mysql_that_went_back() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    open_sale(&world, 200).await;
    let (api, stores) = (&world.api, &world.stores);
    let mut paid = 0;
    for round in 0..3_u32 {
        let copy = stores.copy_mysql().await;
        let before = join_all((1..=6).map(|seat| pays(api, 40 * round + seat))).await;
        let (back, during) = tokio::join!(
            stores.take_mysql_back(&copy),
            join_all((7..=30).map(|seat| pays(api, 40 * round + seat)))
        );
        assert!(back);
        paid += before.into_iter().chain(during).filter(|paid| *paid).count();
    }
    wait_until_mysql_has_everything(stores).await;
    wait_until_serving(api).await;
    stores.wait_until_idle().await;
    let facts = stores.audit().await;
    assert!(paid >= 18 && facts.payments_that_are("confirmed") >= paid, "{paid} {facts:?}");
}

/// Buys a seat. Requests may be refused while MySQL heals. Returns whether the payment was
/// confirmed.
async fn pays(api: &ApiClient, seat: u32) -> bool {
    let user = new_user();
    let token = api.join(CONCERT, &user).await.body["token"].as_str().unwrap_or("").to_owned();
    let charged = api.charge_with_key(&user, 5_000, &new_key()).await;
    let held = api.hold(&token, SCHEDULE, &[seat]).await;
    let (Some(reservation), 201) = (held.body["id"].as_str(), charged.status) else { return false };
    let body = serde_json::json!({"reservation_id": reservation});
    let paid = api.post("/v1/payments").token(&token).key(&new_key()).json(&body).send().await;
    paid.status == 201
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_that_went_back_too_far_is_refused_and_loses_nothing() {
    let stores = TestStores::with_own_redis().await;
    let mut args = stores.args();
    args.stores.outbox_keep_seconds = Some("0".to_owned());
    let world = TestWorld::with_args(stores, &[args]).await;
    open_sale(&world, 40).await;
    let (api, stores) = (&world.api, &world.stores);
    stores.audit().await;
    let older = stores.copy_mysql().await;
    let buyers = join_all((1..=8).map(|seat| buyer(api, seat, seat % 2 == 0))).await;
    let late = api.active_user(CONCERT).await;
    let facts = stores.audit().await;
    let newer = stores.copy_mysql().await;
    let had = generations(stores).await;

    assert!(stores.take_mysql_back(&older).await);
    let show = usize::from(stores.partition_of(CONCERT));
    eventually("the partitions are fenced", || async {
        let has = generations(stores).await;
        (has[show] == format!("healing {}", had[show])).then_some(())
    })
    .await;
    api.hold(&late.token, SCHEDULE, &[40]).await.problem(503, "recovering");
    assert!(!recover(stores, &[]).await.status.success());
    let partition = show.to_string();
    assert!(!recover(stores, &["--partition", &partition]).await.status.success());
    // Other partitions may be fenced in the meantime, because MySQL is older for them, too.
    let fences = generations(stores).await;
    assert_eq!(fences[show], format!("healing {}", had[show]), "the old fence is back");
    let epochs: Vec<_> = fences.iter().map(|fence| fence.replace("healing ", "")).collect();
    assert_eq!(epochs, had);
    api.hold(&late.token, SCHEDULE, &[40]).await.problem(503, "recovering");

    // A newer state of MySQL is found.
    assert!(stores.take_mysql_back(&newer).await);
    wait_until_serving(api).await;
    assert_eq!(generations(stores).await, had);
    let after = stores.audit().await;
    assert_eq!((&after.sold, &after.payments), (&facts.sold, &facts.payments));
    join_all(buyers.iter().map(|buyer| assert_replays(api, buyer))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_recover_puts_the_epoch_back() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    let (api, stores) = (&world.api, &world.stores);
    let user = new_user();
    api.charge(&user, 1).await;
    stores.audit().await;
    let partition = partition_of_user(&user);
    // A number without an entry: MySQL can't take what follows.
    stores.redis().await.ask(&["INCR", &stores.key(partition, "seq")]).await;
    api.charge(&user, 2).await;
    let had = generations(stores).await;
    let refused = recover(stores, &["--partition", &partition.to_string()]).await;
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(generations(stores).await, had);
    wait_until_serving(api).await;
    api.charge(&user, 3).await;
}
