//! The simulated users of `usher dev`: they buy and return seats, leave seats for real users, stop
//! on request, and leave consistent data.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use usher::dev::simulated_users::{SimulatedUsers, SimulationCounts, SimulationSettings};

use crate::support::{TestWorld, eventually, new_key};

const SEATS: u64 = 50;

async fn world() -> TestWorld {
    let world = TestWorld::start(1).await;
    world.put_queue("demo", json!({"promote_per_interval": 50, "max_active": 200})).await;
    let sections = json!([{"name": "A", "from": 1, "to": SEATS, "price": 9_000}]);
    let schedule =
        json!({"id": "demo-1", "starts_at": "2100-01-01T19:00:00.000Z", "sections": sections});
    world
        .put_concert(
            "demo",
            json!({"title": "The demo", "hold_seconds": 20, "schedules": [schedule]}),
        )
        .await;
    let coupon = json!({"title": "Off", "total_quantity": 500, "discount_amount": 2_000,
        "min_available_amount": 5_000,
        "issue_starts_at": "2026-01-01T00:00:00Z", "issue_ends_at": "2100-01-01T00:00:00Z"});
    world.api.put("/admin/coupons/demo-coupon", &coupon).await.expect(200);
    world
}

async fn free(world: &TestWorld, token: &str) -> u64 {
    let seats =
        world.api.get("/v1/schedules/demo-1/seats?status=available").token(token).send().await;
    seats.expect(200)["items"].as_array().unwrap().len() as u64
}

async fn until(simulation: &SimulatedUsers, what: &str, holds: impl Fn(&SimulationCounts) -> bool) {
    eventually(what, || {
        let counts = simulation.state().counts;
        std::future::ready(holds(&counts).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn person_gets_a_seat_beside_simulated_users() {
    let world = world().await;
    let public: SocketAddr = world.api.public().trim_start_matches("http://").parse().unwrap();
    let simulation = SimulatedUsers::new(SimulationSettings::STOPPED);
    let stop = CancellationToken::new();
    let running = tokio::spawn(simulation.clone().run(public, stop.clone()));
    let settings = SimulationSettings { people: 300, pace_percent: 400, minutes: 60 };
    simulation.configure(settings);
    let busy = |it: &SimulationCounts| {
        it.paid > 20 && it.cancelled > 5 && it.released > 5 && it.gave_up > 20
    };
    until(&simulation, "simulated users buy and return seats", busy).await;

    // A person visits the page.
    let person = world.api.active_user("demo").await;
    assert!(free(&world, &person.token).await >= 10, "simulated users leave seats free");
    world.api.charge(&person.user, 50_000).await;
    let held = eventually("two adjacent seats", || async {
        let request = json!({"schedule_id": "demo-1", "quantity": 2});
        let answer = world
            .api
            .post("/v1/reservations/best")
            .token(&person.token)
            .json(&request)
            .send()
            .await;
        (answer.status == 201).then_some(answer.body)
    })
    .await;
    let paid =
        world.api.payment(&person.token, held["id"].as_str().unwrap(), &new_key()).send().await;
    paid.expect(201);

    simulation.configure(SimulationSettings { people: 0, ..settings });
    until(&simulation, "all simulated users have stopped", |it| {
        it.waiting + it.active + it.owners == 0
    })
    .await;
    let looker = world.api.active_user("demo").await;
    eventually("all seats except the person's are free", || async {
        (free(&world, &looker.token).await == SEATS - 2).then_some(())
    })
    .await;

    // An instance without simulated users does not report them.
    let get = world.api.admin_call(reqwest::Method::GET, "/admin/dev/crowd").send().await;
    assert_eq!(get.status, 404);
    stop.cancel();
    running.await.unwrap();
    let report: Value =
        world.api.admin_call(reqwest::Method::POST, "/admin/audit").send().await.expect(200);
    assert_eq!(report["consistent"], true, "{report}");
    world.stop().await.audit().await;
}

/// Seats that simulated users of a killed run have bought are free again once the next run starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_users_return_the_seats_of_a_killed_run() {
    let world = world().await;
    let public: SocketAddr = world.api.public().trim_start_matches("http://").parse().unwrap();
    let settings = SimulationSettings { people: 100, pace_percent: 100, minutes: 60 };
    let (simulation, stop) = (SimulatedUsers::new(settings), CancellationToken::new());
    let running = tokio::spawn(simulation.clone().run(public, stop.clone()));
    until(&simulation, "some simulated users own seats", |it| it.owners > 2).await;
    stop.cancel();
    running.await.unwrap();
    let looker = world.api.active_user("demo").await;
    eventually("seats of users who have stopped", || async {
        (free(&world, &looker.token).await < SEATS).then_some(())
    })
    .await;

    let (simulation, stop) = (
        SimulatedUsers::new(SimulationSettings { people: 1, ..settings }),
        CancellationToken::new(),
    );
    let running = tokio::spawn(simulation.clone().run(public, stop.clone()));
    until(&simulation, "the next run has started", |it| it.visits > 0).await;
    simulation.configure(SimulationSettings::STOPPED);
    eventually("all seats are free", || async {
        (free(&world, &looker.token).await == SEATS).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}
