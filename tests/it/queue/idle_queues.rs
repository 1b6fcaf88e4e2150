//! Queues in which nothing happens cost nothing.

use serde_json::{Value, json};

use crate::support::resp::RespClient;
use crate::support::servers::PARTITIONS;
use crate::support::{TestStores, TestWorld, eventually, new_user};

/// Far more than there are partitions.
const QUEUES: i64 = 300;

/// How many times Redis has executed a command, also in scripts.
pub(crate) async fn calls(redis: &mut RespClient, command: &str) -> i64 {
    let stats = redis.ask(&["INFO", "commandstats"]).await.text();
    let line = format!("cmdstat_{command}:calls=");
    let found = stats.lines().find_map(|stat| stat.strip_prefix(&line));
    found.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// Waits until every partition was asked eight times for its busy queues, which takes two seconds.
async fn eight_looks(redis: &mut RespClient) {
    let target = calls(redis, "hscan").await + 8 * i64::from(PARTITIONS);
    let redis = tokio::sync::Mutex::new(redis);
    eventually("eight looks", || async {
        (calls(*redis.lock().await, "hscan").await >= target).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_queues_cost_nothing() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    let api = &world.api;
    let narrow: Value = json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1});
    for nth in 0..QUEUES {
        api.put(&format!("/admin/queues/q{nth}"), &narrow).await.expect(200);
    }
    // A used queue becomes idle, too.
    let guest = api.join_new_user("q0").await;
    api.delete("/v1/queues/q0/tokens/me").token(&guest.token).send().await.expect_text(204);

    let mut redis = world.stores.redis().await;
    // The promoter and both sweeps read a range by score for each queue that they visit.
    let mut reads = i64::MAX;
    for _ in 0..5 {
        let before = calls(&mut redis, "zrangebyscore").await;
        eight_looks(&mut redis).await;
        reads = reads.min(calls(&mut redis, "zrangebyscore").await - before);
    }
    assert!(reads < QUEUES, "{reads} reads");
    // A list reads the open reservations of its user in each queue that it asks.
    let before = calls(&mut redis, "hget").await;
    api.get("/v1/reservations/mine").user(&new_user()).send().await.expect(200);
    assert!(calls(&mut redis, "hget").await - before < QUEUES);

    // An idle queue admits users as before.
    let (first, second) = (api.join_new_user("q7").await, api.join_new_user("q7").await);
    api.delete("/v1/queues/q7/tokens/me").token(&first.token).send().await.expect_text(204);
    api.wait_until_active("q7", &second).await;
}
