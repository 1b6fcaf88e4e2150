//! Definitions that one instance creates or changes and another one uses at once.

use serde_json::{Value, json};

use crate::coupons::payments::coupon;
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{ApiClient, SCHEDULE, TestStores, TestWorld, UsherProcess, new_user};

/// Instances look at MySQL four times a second, so one round could pass by chance.
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

fn reward(title: &str, amount: u32) -> Value {
    json!({
        "title": title, "starts_at": "2020-01-01T00:00:00Z", "ends_at": "2100-01-01T00:00:00Z",
        "reward": {"kind": "points", "amount": amount},
    })
}

/// Changes one definition of each kind on `writes`. Each is visible on `reads` when the change has
/// been answered.
async fn change_and_read(writes: &ApiClient, reads: &ApiClient, round: u32) {
    let title = format!("title {round}");
    let mut settings = fast_queue_settings();
    settings["message"] = json!(title);
    let (mode, status) = if round.is_multiple_of(2) { ("open", 201) } else { ("closed", 403) };
    settings["mode"] = json!(mode);
    writes.put("/admin/queues/show", &settings).await.expect(200);
    let state = reads.get("/v1/queues/show").send().await.expect(200);
    assert_eq!((&state["message"], &state["mode"]), (&settings["message"], &settings["mode"]));
    let joined = reads.join("show", &new_user()).await;
    assert_eq!(joined.status, status, "{joined:?}");

    let mut concert = concert_definition(10, 1_000 + i64::from(round));
    concert["title"] = json!(title);
    writes.put("/admin/concerts/show", &concert).await.expect(200);
    assert_eq!(reads.get("/v1/concerts/show").send().await.expect(200)["title"], title);

    let mut discount = coupon(100 + i64::from(round), 100);
    discount["title"] = json!(title);
    writes.put("/admin/coupons/show", &discount).await.expect(200);
    assert_eq!(reads.get("/v1/coupons/show").send().await.expect(200)["title"], title);

    writes.put("/admin/rewards/show", &reward(&title, 1 + round)).await.expect(200);
    assert_eq!(reads.get("/v1/rewards/show").send().await.expect(200)["title"], title);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_definitions_are_visible_on_every_instance_at_once() {
    let world = TestWorld::start(3).await;
    for round in 0..3 * ROUNDS {
        let at = |n: u32| world.api.for_instance((n % 3) as usize);
        change_and_read(&at(round), &at(round + 1), round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn price_of_a_hold_is_the_changed_one_at_once() {
    let world = TestWorld::start(2).await;
    let second = world.api.for_instance(1);
    world.put_show(100, 1_000).await;
    for round in 1..=ROUNDS {
        let price = 1_000 + round;
        let definition = concert_definition(100, i64::from(price));
        world.api.for_instance(0).put("/admin/concerts/show", &definition).await.expect(200);
        let guest = second.active_user("show").await;
        let held = second.hold(&guest.token, SCHEDULE, &[round]).await.expect(201);
        assert_eq!(held["amount"], price, "{held}");
    }
}

/// An instance that hangs delays a change, and does not serve the old definitions afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_instance_delays_a_change_and_never_serves_the_old_one() {
    let stores = TestStores::new().await;
    let [changing, frozen] =
        [UsherProcess::start(&stores).await, UsherProcess::start(&stores).await];
    let (writes, reads) = (changing.api(), frozen.api());
    change_and_read(&writes, &reads, 0).await;
    for round in 1..=4 {
        frozen.freeze();
        frozen.wait_until_frozen().await;
        let title = format!("frozen {round}");
        writes.put("/admin/rewards/show", &reward(&title, 1)).await.expect(200);
        frozen.thaw();
        assert_eq!(reads.get("/v1/rewards/show").send().await.expect(200)["title"], title);
        change_and_read(&writes, &reads, round).await;
    }
    // A dead instance delays one change only. Its record is gone after it.
    frozen.kill().await;
    writes.put("/admin/rewards/show", &reward("alone", 1)).await.expect(200);
    let key = stores.key(0, "instances");
    assert_eq!(stores.redis().await.hash(&key).await.len(), 1);
}
