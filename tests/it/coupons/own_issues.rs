//! The list of a user's issues asks Redis only about coupons that MySQL does not have completely.

use serde_json::Value;

use super::payments::coupon;
use crate::queue::idle_queues::calls;
use crate::support::{TestStores, TestWorld, eventually, new_user};

/// Far more than there are partitions.
const COUPONS: i64 = 120;
const MINE: &str = "/v1/coupons/issues/mine";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_issues_do_not_ask_every_coupon() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    let api = &world.api;
    for nth in 0..COUPONS {
        api.put(&format!("/admin/coupons/c{nth}"), &coupon(500, 1_000)).await.expect(200);
    }
    let user = new_user();
    let issued = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|item| item["coupon_id"].as_str().unwrap().to_owned()).collect()
    };
    for nth in [5, 70, 99] {
        let path = format!("/v1/coupons/c{nth}/issues");
        api.post(&path).user(&user).send().await.expect(201);
        let list = api.get(MINE).user(&user).send().await.expect(200);
        assert!(issued(&list).contains(&format!("c{nth}")), "{list}");
    }
    world.stores.audit().await;
    let redis = tokio::sync::Mutex::new(world.stores.redis().await);
    // Other tasks of the instances ask, too.
    eventually("few questions for one list", || async {
        let mut redis = redis.lock().await;
        let before = calls(&mut redis, "hget").await;
        let list = api.get(MINE).user(&user).send().await.expect(200);
        assert_eq!(issued(&list), ["c99", "c70", "c5"]);
        (calls(&mut redis, "hget").await - before < COUPONS / 4).then_some(())
    })
    .await;
}
