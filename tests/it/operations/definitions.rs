//! Definitions that one instance creates and another one uses at once.

use serde_json::json;

use crate::coupons::payments::coupon;
use crate::support::world::concert_definition;
use crate::support::{TestWorld, new_user};

/// Instances refresh their definitions four times a second, so one round could pass by chance.
const ROUNDS: u32 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_definitions_are_known_to_every_instance_at_once() {
    let world = TestWorld::start(2).await;
    let (first, second) = (world.api.for_instance(0), world.api.for_instance(1));
    for round in 0..ROUNDS {
        let (queue, name, user) = (format!("q{round}"), format!("n{round}"), new_user());
        first.put(&format!("/admin/queues/{queue}"), &json!({})).await.expect(200);
        second.join(&queue, &user).await.expect(201);

        let mut concert = concert_definition(10, 1_000);
        concert["schedules"][0]["id"] = json!(format!("s{round}"));
        first.put(&format!("/admin/concerts/{name}"), &concert).await.expect(200);
        second.get(&format!("/v1/concerts/{name}")).send().await.expect(200);

        first.put(&format!("/admin/coupons/{name}"), &coupon(100, 100)).await.expect(200);
        let issue = second.post(&format!("/v1/coupons/{name}/issues")).user(&user);
        issue.send().await.expect(201);

        let reward = json!({
            "title": "A reward", "starts_at": "2020-01-01T00:00:00Z",
            "ends_at": "2100-01-01T00:00:00Z", "active": true, "conditions": [],
            "reward": {"kind": "points", "amount": 100},
        });
        first.put(&format!("/admin/rewards/{name}"), &reward).await.expect(200);
        second.get(&format!("/v1/rewards/{name}")).send().await.expect(200);
    }
    for path in ["queues", "concerts", "coupons", "rewards"] {
        second.get(&format!("/v1/{path}/nowhere")).send().await.problem(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_schedule_is_known_to_every_instance_at_once() {
    let world = TestWorld::start(2).await;
    let (first, second) = (world.api.for_instance(0), world.api.for_instance(1));
    for round in 0..ROUNDS {
        let name = format!("n{round}");
        let schedule = format!("s{round}");
        let mut concert = concert_definition(10, 1_000);
        concert["schedules"][0]["id"] = json!(schedule);
        first.put(&format!("/admin/concerts/{name}"), &concert).await.expect(200);
        let user = second.active_user(&name).await;
        second.hold_seats(&user.token, &schedule, &[1]).await;
    }
}
