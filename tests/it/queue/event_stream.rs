//! The event stream of a place: what it reports, when it ends, and what two thousand streams cost
//! Redis.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use usher::edge::file_descriptors;

use crate::support::api::TestUser;
use crate::support::{
    ApiClient, CONCERT, EventStream, SCHEDULE, StreamItem, TestStores, TestWorld, UsherProcess,
    new_key, on_one_and_two,
};

on_one_and_two!(
    stream_reports_every_state_until_expiry,
    leaving_ends_the_stream,
    used_slot_ends_the_stream,
    closed_queue_keeps_its_streams,
    waiting_users_learn_that_all_is_sold,
    reconnect_reports_the_current_state,
);

const EVENTS: &str = "/v1/queues/show/tokens/me/events";

/// One active user at a time.
fn narrow() -> Value {
    json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1})
}

async fn listen(api: &ApiClient, guest: &TestUser) -> EventStream {
    EventStream::open(&format!("{}{EVENTS}", api.public()), &[("queue-token", &guest.token)]).await
}

async fn leave(api: &ApiClient, guest: &TestUser) {
    api.delete("/v1/queues/show/tokens/me").token(&guest.token).send().await.expect(204);
}

async fn stream_reports_every_state_until_expiry(world: TestWorld) {
    world.put_queue(CONCERT, narrow()).await;
    let api = &world.api;
    let active_user = api.join_new_user(CONCERT).await;
    let (second, third) = (api.join_new_user(CONCERT).await, api.join_new_user(CONCERT).await);
    let mut stream = listen(api, &third).await;
    let StreamItem::Event { name, data, retry } = stream.next().await else {
        panic!("the first ticket comes immediately")
    };
    assert_eq!(
        (name.as_str(), &data["status"], &data["position"]),
        ("ticket", &json!("waiting"), &json!(2))
    );
    assert_eq!((&data["token"], &data["user_id"]), (&json!(third.token), &json!(third.user)));
    assert!(
        retry.is_some_and(|ms| (2_000..6_000).contains(&ms)),
        "retry intervals differ between streams"
    );

    leave(api, &second).await;
    let ticket = stream.until(|ticket| ticket["position"] == 1).await;
    assert_eq!((&ticket["active_until"], &ticket["pass"]), (&json!(null), &json!(null)));
    leave(api, &active_user).await;
    let ticket = stream.until(|ticket| ticket["status"] == "active").await;
    assert!(ticket["position"].is_null() && ticket["pass"].is_string(), "{ticket}");
    // The stream counts as a poll: the user keeps the slot for `active_seconds`, not only for
    // `claim_seconds`.
    assert_eq!(
        api.wait_until_active(CONCERT, &third).await["active_until"],
        ticket["active_until"]
    );
    leave(api, &third).await;
    let ticket = stream.until(|ticket| ticket["status"] == "expired").await;
    assert!(ticket["active_until"].is_null() && ticket["pass"].is_null(), "{ticket}");
    assert_eq!(stream.next().await, StreamItem::End);
}

async fn leaving_ends_the_stream(world: TestWorld) {
    world.put_queue(CONCERT, narrow()).await;
    let api = &world.api;
    let _inside = api.join_new_user(CONCERT).await;
    let guest = api.join_new_user(CONCERT).await;
    // On every device.
    let (mut phone, mut desk) = (listen(api, &guest).await, listen(api, &guest).await);
    for stream in [&mut phone, &mut desk] {
        assert_eq!(stream.ticket().await["status"], "waiting");
    }
    leave(api, &guest).await;
    for stream in [&mut phone, &mut desk] {
        stream.until(|ticket| ticket["status"] == "expired").await;
        assert_eq!(stream.next().await, StreamItem::End);
    }
    // A stream that opens later is refused, so that an `EventSource` does not reconnect.
    api.get(EVENTS).token(&guest.token).send().await.problem(410, "queue_token_expired");
}

async fn used_slot_ends_the_stream(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let mut stream = listen(api, &guest).await;
    assert_eq!(stream.ticket().await["status"], "active");
    api.charge(&guest.user, 1_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    stream.until(|ticket| ticket["status"] == "expired").await;
    assert_eq!(stream.next().await, StreamItem::End);
}

async fn closed_queue_keeps_its_streams(world: TestWorld) {
    world.put_queue(CONCERT, narrow()).await;
    let api = &world.api;
    let active_user = api.join_new_user(CONCERT).await;
    let guest = api.join_new_user(CONCERT).await;
    let mut stream = listen(api, &guest).await;
    assert_eq!(stream.ticket().await["position"], 1);
    let closed = json!({"mode": "closed", "max_active": 1, "message": "Sorry."});
    world.put_queue(CONCERT, closed).await;
    let changed = |ticket: &Value| ticket["mode"] == "closed" && ticket["message"] == "Sorry.";
    let ticket = stream.until(changed).await;
    assert_eq!((&ticket["status"], &ticket["position"]), (&json!("waiting"), &json!(1)));
    leave(api, &active_user).await;
    let moved = stream.until(|ticket| ticket["status"] != "waiting" || ticket["position"] != 1);
    let moved = tokio::time::timeout(Duration::from_secs(2), moved).await;
    assert!(moved.is_err(), "no promotion, and the place is kept: {moved:?}");
    world.put_queue(CONCERT, narrow()).await;
    stream.until(|ticket| ticket["status"] == "active").await;
}

async fn waiting_users_learn_that_all_is_sold(world: TestWorld) {
    world.put_queue(CONCERT, narrow()).await;
    world.put_concert(CONCERT, crate::support::world::concert_definition(2, 1_000)).await;
    let api = &world.api;
    let buyer = api.join_new_user(CONCERT).await;
    let guest = api.join_new_user(CONCERT).await;
    let mut stream = listen(api, &guest).await;
    assert_eq!(stream.ticket().await["sold_out"], json!(false));
    // No user gets the slot that the payment frees, so the waiting user's position stays.
    let mut paused = narrow();
    paused["mode"] = json!("paused");
    world.put_queue(CONCERT, paused).await;
    api.charge(&buyer.user, 2_000).await;
    let reservation = api.hold_seats(&buyer.token, SCHEDULE, &[1, 2]).await;
    api.pay(&buyer.token, &reservation, &new_key()).await.expect(201);
    let ticket = stream.until(|ticket| ticket["sold_out"] == json!(true)).await;
    assert_eq!((&ticket["status"], &ticket["position"]), (&json!("waiting"), &json!(1)));
    assert_eq!(api.get("/v1/queues/show").send().await.expect(200)["sold_out"], json!(true));
}

async fn reconnect_reports_the_current_state(world: TestWorld) {
    world.put_queue(CONCERT, narrow()).await;
    let api = &world.api;
    let _inside = api.join_new_user(CONCERT).await;
    let (second, third) = (api.join_new_user(CONCERT).await, api.join_new_user(CONCERT).await);
    let mut stream = listen(api, &third).await;
    assert_eq!(stream.ticket().await["position"], 2);
    drop(stream);
    leave(api, &second).await;
    for api in (0..api.instances()).map(|at| api.for_instance(at)) {
        crate::support::eventually("every instance knows that the user left", || async {
            (api.poll(CONCERT, &third.token).await.expect(200)["position"] == 1).then_some(())
        })
        .await;
    }
    // Tickets are states, not messages: nothing has to be resent, whatever the client received
    // last. The event id comes by the query, as from a browser.
    let url = format!("{}{EVENTS}?token={}", api.public(), third.token);
    let mut stream = EventStream::open(&url, &[("last-event-id", "7")]).await;
    let ticket = stream.ticket().await;
    assert_eq!((&ticket["status"], &ticket["position"]), (&json!("waiting"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_stream_sends_heartbeats_and_ends_with_the_instance() {
    let world = TestWorld::start(1).await;
    world.put_queue(CONCERT, narrow()).await;
    let (_inside, guest) =
        (world.api.join_new_user(CONCERT).await, world.api.join_new_user(CONCERT).await);
    let mut stream = listen(&world.api, &guest).await;
    assert_eq!(stream.ticket().await["position"], 1);
    let began = Instant::now();
    assert_eq!(stream.next().await, StreamItem::Heartbeat);
    assert!(began.elapsed() >= Duration::from_secs(10), "at most one heartbeat in fifteen seconds");
    let (stores, said) = tokio::join!(world.stop(), stream.next());
    assert_eq!(said, StreamItem::End, "the body ends properly");

    // The place outlives the instance.
    let world = TestWorld::on(stores, 1).await;
    assert_eq!(listen(&world.api, &guest).await.ticket().await["position"], 1);
}

/// Calls of a script, as the process counts them.
async fn calls(api: &ApiClient, script: &str) -> u64 {
    let text =
        api.keyless_admin_call(reqwest::Method::GET, "/metrics").send().await.expect_text(200);
    let start = format!("usher_script_calls_total{{script=\"{script}\"");
    let counts = text.lines().filter(|line| line.starts_with(&start));
    counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_cost_no_more_redis_calls_than_one() {
    let stores = TestStores::new().await;
    let process = UsherProcess::start(&stores).await;
    let api = ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
    let settings = json!({"promote_per_interval": 1, "interval_ms": 3_600_000, "max_active": 1});
    api.put("/admin/queues/show", &settings).await.expect(200);
    api.join_new_user(CONCERT).await;
    let wanted =
        std::env::var("USHER_TEST_STREAMS").ok().map_or(2_000, |streams| streams.parse().unwrap());
    let streams = file_descriptors::raise_limit(wanted).min(wanted);
    eprintln!("{streams} streams");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}{EVENTS}", process.public);
    let opening = futures::stream::iter(0..streams).map(async |_| {
        let guest = api.join_new_user(CONCERT).await;
        let mut stream =
            EventStream::open_with(&client, &url, &[("queue-token", &guest.token)]).await;
        let first = stream.ticket().await;
        assert_eq!(first["status"], "waiting");
        (guest, stream, first["position"].as_u64().unwrap())
    });
    let mut open: Vec<_> = opening.buffer_unordered(64).collect().await;

    let began = Instant::now();
    let before = (calls(&api, "queue/poll").await, calls(&api, "queue/snapshot").await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = (calls(&api, "queue/poll").await, calls(&api, "queue/snapshot").await);
    assert_eq!(after.0 - before.0, 0, "waiting users are answered from memory");
    // Two snapshots a second, at most two calls each.
    let most = (began.elapsed().as_secs() + 1) * 4 + 2;
    let looks = after.1 - before.1;
    assert!(
        (1..=most).contains(&looks),
        "{looks} snapshot calls for {streams} streams, at most {most} expected"
    );

    // The streams are alive: when the first waiting user leaves, those behind are notified.
    open.sort_by_key(|(_, _, position)| *position);
    let (first, rest) = open.split_first_mut().unwrap();
    leave(&api, &first.0).await;
    first.1.until(|ticket| ticket["status"] == "expired").await;
    for (_, stream, position) in rest {
        let ticket = stream.until(|ticket| ticket["position"].as_u64() < Some(*position)).await;
        assert_eq!(ticket["status"], "waiting");
    }
    let asked = calls(&api, "queue/poll").await - before.0;
    assert!(asked <= 1, "{asked} calls of Redis, although only one user has left");
    process.kill().await;
}
