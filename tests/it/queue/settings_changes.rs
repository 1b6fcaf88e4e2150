//! Settings of a line that change while it stands: each takes effect on the other instance as well, and nobody loses their place.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::api::Guest;
use crate::support::{Api, SHOW, World, eventually, new_user};

/// A line whose settings change through one instance and are looked at through the other.
struct Line {
    settings: Value,
    writes: Api,
    reads: Api,
    waiting: Vec<Guest>,
}

impl Line {
    /// Changes some settings, and waits until the other instance tells all of them.
    async fn change(&mut self, changes: Value) {
        self.settings.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let told =
            self.writes.put("/admin/queues/show", &self.settings).await.expect(200)["settings"]
                .clone();
        eventually("the other instance knows the settings", || async {
            let there =
                self.reads.admin_call(reqwest::Method::GET, "/admin/queues/show").send().await;
            (there.expect(200)["settings"] == told).then_some(())
        })
        .await;
        std::mem::swap(&mut self.writes, &mut self.reads);
    }

    async fn state(&self) -> Value {
        self.reads.get("/v1/queues/show").send().await.expect(200)
    }

    async fn until(&self, what: &str, satisfies: impl Fn(&Value) -> bool) {
        eventually(what, || async { satisfies(&self.state().await).then_some(()) }).await;
    }

    /// The first in line is let in, and shows up.
    async fn let_in(&mut self) -> Guest {
        let guest = self.waiting.remove(0);
        self.reads.until_active(SHOW, &guest).await;
        guest
    }

    async fn join(&mut self) {
        let guest = self.writes.guest(SHOW).await;
        self.waiting.push(guest);
    }

    async fn leave(&self, guest: &Guest) {
        self.writes
            .delete("/v1/queues/show/tokens/me")
            .token(&guest.token)
            .send()
            .await
            .expect(204);
    }

    /// Everybody who waits stands where they stood: in the order of their coming, with the same token on both instances.
    async fn is_whole(&self) {
        for (nth, guest) in self.waiting.iter().enumerate() {
            for api in [&self.reads, &self.writes] {
                eventually("the position is told", || async {
                    let ticket = api.poll(SHOW, &guest.token).await.expect(200);
                    assert_eq!(ticket["status"], "waiting");
                    (ticket["position"] == nth + 1).then_some(())
                })
                .await;
                let again = api.join(SHOW, &guest.user).await.expect(200);
                assert_eq!(again["token"], guest.token);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_takes_effect_on_the_other_instance_and_no_place_is_lost() {
    let world = World::start(2).await;
    let settings = json!({
        "mode": "open", "promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1, "active_seconds": 600, "claim_seconds": 600,
    });
    world.queue(SHOW, settings.clone()).await;
    let (writes, reads) = (world.api.only(0), world.api.only(1));
    let mut inside = vec![writes.guest(SHOW).await];
    let mut line = Line { settings, writes, reads, waiting: Vec::new() };
    for _ in 0..8 {
        line.join().await;
    }
    line.is_whole().await;

    // max_active: three more slots, then none again.
    line.change(json!({"max_active": 4})).await;
    for _ in 0..3 {
        inside.push(line.let_in().await);
    }
    line.until("four are inside", |state| state["active"] == 4 && state["max_active"] == 4).await;
    line.change(json!({"max_active": 1})).await;
    for guest in inside.drain(1..) {
        line.leave(&guest).await;
    }
    line.until("one is inside", |state| state["active"] == 1).await;
    line.is_whole().await;

    // max_waiting, by those who would come.
    line.change(json!({"max_waiting": 5})).await;
    line.reads.join(SHOW, &new_user()).await.problem(503, "queue_full");
    line.change(json!({"max_waiting": 6})).await;
    line.join().await;
    line.change(json!({"max_waiting": null})).await;
    line.join().await;
    line.is_whole().await;

    // promote_per_interval and interval_ms: one an hour, of which this was the last, however much room there is.
    line.change(json!({"promote_per_interval": 1, "interval_ms": 3_600_000})).await;
    line.leave(&inside.remove(0)).await;
    line.until("nobody is inside", |state| state["active"] == 0).await;
    line.is_whole().await;
    line.change(json!({"promote_per_interval": 1_000})).await;
    inside.push(line.let_in().await);
    line.change(json!({"promote_per_interval": 1})).await;
    line.leave(&inside.remove(0)).await;
    line.is_whole().await;
    line.change(json!({"interval_ms": 100})).await;
    inside.push(line.let_in().await);

    // active_seconds, of whoever shows up from now on.
    line.change(json!({"active_seconds": 30})).await;
    line.leave(&inside.remove(0)).await;
    inside.push(line.let_in().await);
    let ticket = line.reads.poll(SHOW, &inside[0].token).await.expect(200);
    let until: chrono::DateTime<Utc> = ticket["active_until"].as_str().unwrap().parse().unwrap();
    assert!(until < Utc::now() + TimeDelta::seconds(60), "{ticket}");
    // claim_seconds: slots that nobody comes for go on, until the last in line has one.
    line.change(json!({"active_seconds": 600, "claim_seconds": 1})).await;
    line.leave(&inside.remove(0)).await;
    line.waiting.drain(..line.waiting.len() - 1);
    inside.push(line.let_in().await);

    // mode, opens_at, prequeue_starts_at, closes_at: whatever the line is called, those who stand in it stay.
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
            line.reads.join(SHOW, &new_user()).await.problem(403, "queue_closed");
        } else {
            line.join().await;
        }
        line.is_whole().await;
    }

    // order: a place of the lottery lies before those of arrivals, who keep theirs among each other.
    line.change(json!({"closes_at": null, "opens_at": ahead(600), "order": "lottery"})).await;
    let dealt = line.writes.guest(SHOW).await;
    line.waiting.insert(0, dealt);
    line.change(json!({"opens_at": null, "order": "fifo"})).await;
    line.leave(&inside.remove(0)).await;
    while !line.waiting.is_empty() {
        let guest = line.let_in().await;
        line.leave(&guest).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_estimate_does_not_go_up_when_the_pace_before_a_change_grows_old() {
    let world = World::start(2).await;
    let settings = |claim: u32| json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1, "claim_seconds": claim});
    world.queue(SHOW, settings(60)).await;
    let mut last = world.api.guest(SHOW).await;
    for _ in 0..20 {
        last = world.api.guest(SHOW).await;
    }
    let partition = world.stores.partition_of(SHOW);
    let bucket = world.stores.key(partition, "q:show:bucket");
    let mut redis = world.stores.redis().await;
    // As if six hundred had been let in twenty seconds ago: in a few seconds they no longer count for the last thirty.
    let window = async |redis: &mut crate::support::resp::Resp| {
        redis.ask(&["TIME"]).await.list()[0].clone().int() / 5
    };
    let then = window(&mut redis).await - 4;
    redis.ask(&["HSET", &bucket, &format!("w{}", then % 8), &format!("{then}:600")]).await;
    world.queue(SHOW, settings(61)).await;
    let wait = async |api: &Api| {
        api.poll(SHOW, &last.token).await.expect(200)["estimated_wait_seconds"].as_u64()
    };
    // Twenty wait, and twenty are let in a second. Each instance knows it once its snapshot is newer than the change.
    let mut told = 0;
    for at in 0..world.api.instances() {
        let api = world.api.only(at);
        told = told.max(
            eventually("the pace is known", async || wait(&api).await.filter(|wait| *wait <= 2))
                .await,
        );
    }
    while window(&mut redis).await < then + 7 {
        let again = wait(&world.api).await.expect("it stays known");
        assert!(again <= told, "told {told} s, then {again} s");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
