//! Dates that are called off: every reservation is refunded in the background, whatever dies.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::TestUser;
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestStores, TestWorld, UsherProcess, eventually, new_key,
    on_one_and_two,
};

on_one_and_two!(called_off_date_is_refunded, called_off_date_stays_so);

const CHARGED: i64 = 10_000;
const PRICE: i64 = 4_000;
/// Reservations that survive two kills. `USHER_TEST_JOB_RESERVATIONS` sets another number.
const RESERVATIONS: u32 = 200;

struct Buyer {
    user: TestUser,
    reservation: String,
}

/// Buys a seat for each of some new users.
async fn buyers(api: &ApiClient, seats: impl Iterator<Item = u32>) -> Vec<Buyer> {
    let all = seats.map(async |seat| {
        let user = api.active_user(CONCERT).await;
        api.charge(&user.user, CHARGED).await;
        let reservation = api.hold_seats(&user.token, SCHEDULE, &[seat]).await;
        api.pay(&user.token, &reservation, &new_key()).await.expect(201);
        Buyer { user, reservation }
    });
    join_all(all).await
}

async fn call_off(api: &ApiClient, schedule: &str) -> Value {
    let call = api.admin_call(Method::POST, &format!("/admin/schedules/{schedule}/cancel"));
    call.json(&json!({"reason": "The artist is ill."})).send().await.expect(202)
}

async fn job(api: &ApiClient, id: &Value) -> Value {
    let path = format!("/admin/jobs/{}", id.as_str().unwrap());
    api.admin_call(Method::GET, &path).send().await.expect(200)
}

async fn wait_until_done(api: &ApiClient, id: &Value) -> Value {
    eventually("the job is done", || async {
        let job = job(api, id).await;
        (job["status"] != "running").then_some(job)
    })
    .await
}

async fn assert_refunded(api: &ApiClient, buyers: &[Buyer]) {
    for buyer in buyers {
        assert_eq!(api.balance(&buyer.user.user).await, CHARGED);
        let path = format!("/v1/reservations/{}", buyer.reservation);
        let reservation = api.get(&path).user(&buyer.user.user).send().await.expect(200);
        assert_eq!(reservation["status"], "cancelled", "{reservation}");
    }
}

async fn called_off_date_is_refunded(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let mut concert = concert_definition(50, PRICE);
    // Users could not cancel any more.
    concert["cancel_until"] = json!("2020-01-01T00:00:00Z");
    let mut other = concert["schedules"][0].clone();
    other["id"] = json!("other-night");
    concert["schedules"].as_array_mut().unwrap().push(other);
    world.put_concert(CONCERT, concert).await;
    let api = &world.api;
    let bought = buyers(api, 1..=10).await;
    let holder = api.active_user(CONCERT).await;
    let held = api.hold_seats(&holder.token, SCHEDULE, &[20, 21]).await;
    let kept = api.hold_seats(&holder.token, "other-night", &[1]).await;

    let started = call_off(api, SCHEDULE).await;
    assert_eq!(
        (&started["kind"], &started["schedule_id"]),
        (&json!("cancel_schedule"), &json!(SCHEDULE))
    );
    // From the response on, no instance sells a seat of it.
    let late = api.active_user(CONCERT).await;
    for at in 0..api.instances() {
        let api = api.for_instance(at);
        api.hold(&late.token, SCHEDULE, &[30]).await.problem(403, "booking_not_open");
        let dates = api.get(&format!("/v1/concerts/{CONCERT}/schedules?all=true"));
        let dates = dates.token(&late.token).send().await.expect(200);
        let date = dates["items"].as_array().unwrap().iter().find(|it| it["id"] == SCHEDULE);
        let date = date.unwrap();
        assert_eq!(
            (&date["bookable"], &date["not_bookable_reason"]),
            (&json!(false), &json!("cancelled"))
        );
    }
    let done = wait_until_done(api, &started["id"]).await;
    assert_eq!(
        (&done["status"], &done["done"], &done["total"], &done["failures"]),
        (&json!("done"), &json!(11), &json!(11), &json!(0))
    );
    assert!(done["ended_at"].is_string());
    assert_refunded(api, &bought).await;
    let path = format!("/v1/reservations/{held}");
    let released = api.get(&path).user(&holder.user).send().await.expect(200);
    assert_eq!(released["status"], "released");
    let path = format!("/v1/reservations/{kept}");
    assert_eq!(api.get(&path).user(&holder.user).send().await.expect(200)["status"], "held");
    // Called off once more, it is the same job.
    let again = call_off(api, SCHEDULE).await;
    assert_eq!((&again["id"], &again["status"]), (&started["id"], &json!("done")));
    let jobs = api.admin_call(Method::GET, "/admin/jobs").send().await.expect(200);
    assert_eq!(jobs["items"], json!([again]));
    world.stores.audit().await;
}

async fn called_off_date_stays_so(world: TestWorld) {
    world.put_show(10, PRICE).await;
    let api = &world.api;
    let unknown = api.admin_call(Method::POST, "/admin/schedules/nowhere/cancel");
    unknown.json(&json!({"reason": "x"})).send().await.problem(404, "not_found");
    let started = call_off(api, SCHEDULE).await;
    assert_eq!(wait_until_done(api, &started["id"]).await["total"], 0);
    // A change of the concert does not open it again.
    world.put_concert(CONCERT, concert_definition(20, PRICE)).await;
    let user = api.active_user(CONCERT).await;
    for _ in 0..api.instances() {
        api.hold(&user.token, SCHEDULE, &[1]).await.problem(403, "booking_not_open");
        let best = api.post("/v1/reservations/best").token(&user.token);
        let best = best.json(&json!({"schedule_id": SCHEDULE, "quantity": 2}));
        best.send().await.problem(403, "booking_not_open");
    }
    let concert = api.admin_call(Method::GET, "/admin/concerts/show").send().await.expect(200);
    assert_eq!(concert["schedules"][0]["cancelled"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_survives_two_kills_in_the_middle() {
    let reservations = std::env::var("USHER_TEST_JOB_RESERVATIONS");
    let reservations = reservations.map_or(RESERVATIONS, |text| text.parse().unwrap());
    let stores = TestStores::new().await;
    let selling = UsherProcess::start(&stores).await;
    let api = selling.api();
    api.put("/admin/queues/show", &fast_queue_settings()).await.expect(200);
    api.put("/admin/concerts/show", &concert_definition(reservations, PRICE)).await.expect(200);
    let mut bought = Vec::new();
    for first in (1..=reservations).step_by(200) {
        bought.extend(buyers(&api, first..=reservations.min(first + 199)).await);
    }
    selling.kill().await;

    let third = reservations / 3;
    // After the commit point of a cancellation, and between its refund and its end.
    let points = ["payment/begin_cancel.after", "payment/finish_cancel.before"];
    for (nth, point) in points.into_iter().enumerate() {
        let point = format!("{point}={third}*off->return(kill)");
        let dying = UsherProcess::start_failing(&stores, &point).await;
        if nth == 0 {
            // The process may die before it answers.
            let call = dying.api().admin_call(Method::POST, "/admin/schedules/night/cancel");
            drop(call.json(&json!({"reason": "The artist is ill."})).try_send().await);
        }
        dying.wait_until_killed().await;
    }
    let last = UsherProcess::start(&stores).await;
    let api = last.api();
    let jobs = api.admin_call(Method::GET, "/admin/jobs").send().await.expect(200);
    let done = wait_until_done(&api, &jobs["items"][0]["id"]).await;
    assert_eq!(
        (&done["status"], &done["done"], &done["total"], &done["failures"]),
        (&json!("done"), &json!(reservations), &json!(reservations), &json!(0))
    );
    assert_refunded(&api, &bought).await;
    let facts = stores.audit().await;
    assert!(facts.sold.is_empty(), "{:?}", facts.sold);
    assert_eq!(facts.payments_that_are("refunded"), reservations as usize);
}
