//! The demo crowd of `usher dev`: it sells and gives back, starves nobody, goes home when it is told to, and leaves the books in balance.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use usher::dev::crowd::{SimulatedUsers, SimulationCounts, SimulationSettings};

use crate::support::{World, eventually, new_key};

const SEATS: u64 = 50;

async fn world() -> World {
    let world = World::start(1).await;
    world.queue("demo", json!({"promote_per_interval": 50, "max_active": 200})).await;
    let sections = json!([{"name": "A", "from": 1, "to": SEATS, "price": 9_000}]);
    let schedule =
        json!({"id": "demo-1", "starts_at": "2100-01-01T19:00:00.000Z", "sections": sections});
    world
        .concert("demo", json!({"title": "The demo", "hold_seconds": 20, "schedules": [schedule]}))
        .await;
    let coupon = json!({"title": "Off", "total_quantity": 500, "discount_amount": 2_000, "min_available_amount": 5_000,
        "issue_starts_at": "2026-01-01T00:00:00Z", "issue_ends_at": "2100-01-01T00:00:00Z"});
    world.api.put("/admin/coupons/demo-coupon", &coupon).await.expect(200);
    world
}

async fn free(world: &World, token: &str) -> u64 {
    let seats =
        world.api.get("/v1/schedules/demo-1/seats?status=available").token(token).send().await;
    seats.expect(200)["items"].as_array().unwrap().len() as u64
}

async fn until(crowd: &SimulatedUsers, what: &str, holds: impl Fn(&SimulationCounts) -> bool) {
    eventually(what, || {
        let counts = crowd.state().counts;
        std::future::ready(holds(&counts).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_gets_a_seat_among_the_crowd_and_nothing_is_left_of_it() {
    let world = world().await;
    let public: SocketAddr = world.api.public().trim_start_matches("http://").parse().unwrap();
    let crowd = SimulatedUsers::new(SimulationSettings::NOBODY);
    let stop = CancellationToken::new();
    let running = tokio::spawn(crowd.clone().run(public, stop.clone()));
    let wish = SimulationSettings { people: 300, pace_percent: 400, minutes: 60 };
    crowd.wish(wish);
    let busy = |it: &SimulationCounts| {
        it.paid > 20 && it.cancelled > 5 && it.given_back > 5 && it.gave_up > 20
    };
    until(&crowd, "the crowd buys and gives back", busy).await;

    // Somebody comes to the page.
    let person = world.api.active_guest("demo").await;
    assert!(free(&world, &person.token).await >= 10, "the crowd leaves seats");
    world.api.charge(&person.user, 50_000).await;
    let held = eventually("two seats side by side", || async {
        let wish = json!({"schedule_id": "demo-1", "quantity": 2});
        let answer =
            world.api.post("/v1/reservations/best").token(&person.token).json(&wish).send().await;
        (answer.status == 201).then_some(answer.body)
    })
    .await;
    let paid =
        world.api.payment(&person.token, held["id"].as_str().unwrap(), &new_key()).send().await;
    paid.expect(201);

    crowd.wish(SimulationSettings { people: 0, ..wish });
    until(&crowd, "everybody has gone home", |it| it.in_line + it.inside + it.owners == 0).await;
    let looker = world.api.active_guest("demo").await;
    eventually("all seats but the person's are free", || async {
        (free(&world, &looker.token).await == SEATS - 2).then_some(())
    })
    .await;

    // Nothing of it in an instance that was not started with one.
    let get = world.api.admin_call(reqwest::Method::GET, "/admin/dev/crowd").send().await;
    assert_eq!(get.status, 404);
    stop.cancel();
    running.await.unwrap();
    let report: Value =
        world.api.admin_call(reqwest::Method::POST, "/admin/audit").send().await.expect(200);
    assert_eq!(report["consistent"], true, "{report}");
    world.stop().await.audit().await;
}

/// What a crowd that was killed has bought is there for sale again once the next one comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gives_back_what_one_before_it_left() {
    let world = world().await;
    let public: SocketAddr = world.api.public().trim_start_matches("http://").parse().unwrap();
    let wish = SimulationSettings { people: 100, pace_percent: 100, minutes: 60 };
    let (crowd, stop) = (SimulatedUsers::new(wish), CancellationToken::new());
    let running = tokio::spawn(crowd.clone().run(public, stop.clone()));
    until(&crowd, "some of them own seats", |it| it.owners > 2).await;
    stop.cancel();
    running.await.unwrap();
    let looker = world.api.active_guest("demo").await;
    eventually("seats of nobody who is there", || async {
        (free(&world, &looker.token).await < SEATS).then_some(())
    })
    .await;

    let (crowd, stop) =
        (SimulatedUsers::new(SimulationSettings { people: 1, ..wish }), CancellationToken::new());
    let running = tokio::spawn(crowd.clone().run(public, stop.clone()));
    until(&crowd, "the next one has come", |it| it.visits > 0).await;
    crowd.wish(SimulationSettings::NOBODY);
    eventually("all seats are free", || async {
        (free(&world, &looker.token).await == SEATS).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}
