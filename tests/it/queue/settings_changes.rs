//! Settings that change while users wait: each takes effect on the other instance as well, and
//! every place is kept.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::api::TestUser;
use crate::support::{ApiClient, CONCERT, TestWorld, eventually, new_user};

/// A queue whose settings change through one instance and are read through the other.
struct TestQueue {
    settings: Value,
    writes: ApiClient,
    reads: ApiClient,
    waiting: Vec<TestUser>,
}

impl TestQueue {
    /// Changes some settings, which the other instance reports at once.
    async fn change(&mut self, changes: Value) {
        self.settings.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let reported =
            self.writes.put("/admin/queues/show", &self.settings).await.expect(200)["definition"]
                .clone();
        let there = self.reads.admin_call(reqwest::Method::GET, "/admin/queues/show").send().await;
        assert_eq!(
            there.expect(200)["definition"],
            reported,
            "the other instance has the settings"
        );
        std::mem::swap(&mut self.writes, &mut self.reads);
    }

    async fn state(&self) -> Value {
        self.reads.get("/v1/queues/show").send().await.expect(200)
    }

    async fn until(&self, what: &str, satisfies: impl Fn(&Value) -> bool) {
        eventually(what, || async { satisfies(&self.state().await).then_some(()) }).await;
    }

    /// The first waiting user is admitted, and polls.
    async fn admit_first(&mut self) -> TestUser {
        let guest = self.waiting.remove(0);
        self.reads.wait_until_active(CONCERT, &guest).await;
        guest
    }

    async fn join(&mut self) {
        let guest = self.writes.join_new_user(CONCERT).await;
        self.waiting.push(guest);
    }

    async fn leave(&self, guest: &TestUser) {
        self.writes
            .delete("/v1/queues/show/tokens/me")
            .token(&guest.token)
            .send()
            .await
            .expect(204);
    }

    /// Every waiting user keeps their place: in the order of arrival, with the same token on both
    /// instances.
    async fn wait_until_healthy(&self) {
        for (nth, guest) in self.waiting.iter().enumerate() {
            for api in [&self.reads, &self.writes] {
                eventually("the position is reported", || async {
                    let ticket = api.poll(CONCERT, &guest.token).await.expect(200);
                    assert_eq!(ticket["status"], "waiting");
                    (ticket["position"] == nth + 1).then_some(())
                })
                .await;
                let again = api.join(CONCERT, &guest.user).await.expect(200);
                assert_eq!(again["token"], guest.token);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_takes_effect_on_other_instances_and_keeps_places() {
    let world = TestWorld::start(2).await;
    let settings = json!({
        "mode": "open", "promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1,
        "active_seconds": 600, "claim_seconds": 600,
    });
    world.put_queue(CONCERT, settings.clone()).await;
    let (writes, reads) = (world.api.for_instance(0), world.api.for_instance(1));
    let mut active_user = vec![writes.join_new_user(CONCERT).await];
    let mut line = TestQueue { settings, writes, reads, waiting: Vec::new() };
    for _ in 0..8 {
        line.join().await;
    }
    line.wait_until_healthy().await;

    // max_active: three more slots, then none.
    line.change(json!({"max_active": 4})).await;
    for _ in 0..3 {
        active_user.push(line.admit_first().await);
    }
    line.until("four users are active", |state| state["active"] == 4 && state["max_active"] == 4)
        .await;
    line.change(json!({"max_active": 1})).await;
    for guest in active_user.drain(1..) {
        line.leave(&guest).await;
    }
    line.until("one user is active", |state| state["active"] == 1).await;
    line.wait_until_healthy().await;

    // max_waiting, checked by new joins.
    line.change(json!({"max_waiting": 5})).await;
    line.reads.join(CONCERT, &new_user()).await.problem(503, "queue_full");
    line.change(json!({"max_waiting": 6})).await;
    line.join().await;
    line.change(json!({"max_waiting": null})).await;
    line.join().await;
    line.wait_until_healthy().await;

    // promote_per_interval and interval_ms: one promotion an hour, however many slots are free.
    line.change(json!({"promote_per_interval": 1, "interval_ms": 3_600_000})).await;
    line.leave(&active_user.remove(0)).await;
    line.until("no user is active", |state| state["active"] == 0).await;
    line.wait_until_healthy().await;
    line.change(json!({"promote_per_interval": 1_000})).await;
    active_user.push(line.admit_first().await);
    line.change(json!({"promote_per_interval": 1})).await;
    line.leave(&active_user.remove(0)).await;
    line.wait_until_healthy().await;
    line.change(json!({"interval_ms": 100})).await;
    active_user.push(line.admit_first().await);

    // active_seconds, for users who poll from now on.
    line.change(json!({"active_seconds": 30})).await;
    line.leave(&active_user.remove(0)).await;
    active_user.push(line.admit_first().await);
    let ticket = line.reads.poll(CONCERT, &active_user[0].token).await.expect(200);
    let until: chrono::DateTime<Utc> = ticket["active_until"].as_str().unwrap().parse().unwrap();
    assert!(until < Utc::now() + TimeDelta::seconds(60), "{ticket}");
    // claim_seconds: unclaimed slots pass on until the last user has one.
    line.change(json!({"active_seconds": 600, "claim_seconds": 1})).await;
    line.leave(&active_user.remove(0)).await;
    line.waiting.drain(..line.waiting.len() - 1);
    active_user.push(line.admit_first().await);

    // mode, opens_at, prequeue_starts_at, closes_at: waiting users stay.
    for _ in 0..3 {
        line.join().await;
    }
    let ahead = |seconds| Utc::now() + TimeDelta::seconds(seconds);
    for (changes, mode) in [
        (json!({"mode": "paused"}), "paused"),
        (json!({"mode": "closed"}), "closed"),
        (json!({"mode": "prequeue"}), "prequeue"),
        (json!({"mode": "open", "opens_at": ahead(600)}), "prequeue"),
        (json!({"prequeue_starts_at": ahead(300)}), "closed"),
        (json!({"prequeue_starts_at": null, "opens_at": null, "closes_at": ahead(-1)}), "closed"),
    ] {
        line.change(changes).await;
        line.until(mode, |state| state["mode"] == mode).await;
        if mode == "closed" {
            line.reads.join(CONCERT, &new_user()).await.problem(403, "queue_closed");
        } else {
            line.join().await;
        }
        line.wait_until_healthy().await;
    }

    // order: users who wait stay ahead of the entrants of a later draw.
    line.change(json!({"closes_at": null, "opens_at": ahead(600), "order": "lottery"})).await;
    let dealt = line.writes.join_new_user(CONCERT).await;
    line.waiting.push(dealt);
    line.change(json!({"opens_at": null, "order": "fifo"})).await;
    line.leave(&active_user.remove(0)).await;
    while !line.waiting.is_empty() {
        let guest = line.admit_first().await;
        line.leave(&guest).await;
    }
}
