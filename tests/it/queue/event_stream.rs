//! The place as a stream of events: what it tells, when it ends, and what two thousand of them cost Redis.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use usher::edge::file_descriptors;

use crate::support::api::Guest;
use crate::support::{
    Api, NIGHT, Process, SHOW, Said, Sse, Stores, World, new_key, on_one_and_two,
};

on_one_and_two!(
    a_stream_follows_its_holder_to_the_end,
    who_leaves_is_told_and_the_stream_ends,
    a_slot_that_is_used_up_ends_the_stream,
    a_closed_queue_keeps_its_streams,
    who_waits_is_told_that_all_is_sold,
    who_comes_back_is_told_the_present,
);

const EVENTS: &str = "/v1/queues/show/tokens/me/events";

/// One user inside at a time.
fn narrow() -> Value {
    json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1})
}

async fn listen(api: &Api, guest: &Guest) -> Sse {
    Sse::open(&format!("{}{EVENTS}", api.public()), &[("queue-token", &guest.token)]).await
}

async fn leave(api: &Api, guest: &Guest) {
    api.delete("/v1/queues/show/tokens/me").token(&guest.token).send().await.expect(204);
}

async fn a_stream_follows_its_holder_to_the_end(world: World) {
    world.queue(SHOW, narrow()).await;
    let api = &world.api;
    let inside = api.guest(SHOW).await;
    let (second, third) = (api.guest(SHOW).await, api.guest(SHOW).await);
    let mut stream = listen(api, &third).await;
    let Said::Event { name, data, retry } = stream.next().await else {
        panic!("the ticket comes at once")
    };
    assert_eq!(
        (name.as_str(), &data["status"], &data["position"]),
        ("ticket", &json!("waiting"), &json!(2))
    );
    assert_eq!((&data["token"], &data["user_id"]), (&json!(third.token), &json!(third.user)));
    assert!(
        retry.is_some_and(|ms| (2_000..6_000).contains(&ms)),
        "a crowd does not come back in step"
    );

    leave(api, &second).await;
    let ticket = stream.until(|ticket| ticket["position"] == 1).await;
    assert_eq!((&ticket["active_until"], &ticket["pass"]), (&json!(null), &json!(null)));
    leave(api, &inside).await;
    let ticket = stream.until(|ticket| ticket["status"] == "active").await;
    assert!(ticket["position"].is_null() && ticket["pass"].is_string(), "{ticket}");
    // To be told by the stream is to have shown up: the slot is theirs for `active_seconds`, not for `claim_seconds`.
    assert_eq!(api.until_active(SHOW, &third).await["active_until"], ticket["active_until"]);
    leave(api, &third).await;
    let ticket = stream.until(|ticket| ticket["status"] == "expired").await;
    assert!(ticket["active_until"].is_null() && ticket["pass"].is_null(), "{ticket}");
    assert_eq!(stream.next().await, Said::End);
}

async fn who_leaves_is_told_and_the_stream_ends(world: World) {
    world.queue(SHOW, narrow()).await;
    let api = &world.api;
    let _inside = api.guest(SHOW).await;
    let guest = api.guest(SHOW).await;
    // On every device.
    let (mut phone, mut desk) = (listen(api, &guest).await, listen(api, &guest).await);
    for stream in [&mut phone, &mut desk] {
        assert_eq!(stream.ticket().await["status"], "waiting");
    }
    leave(api, &guest).await;
    for stream in [&mut phone, &mut desk] {
        stream.until(|ticket| ticket["status"] == "expired").await;
        assert_eq!(stream.next().await, Said::End);
    }
    // And whoever asks later hears it once.
    let mut late = listen(api, &guest).await;
    assert_eq!(late.ticket().await["status"], "expired");
    assert_eq!(late.next().await, Said::End);
}

async fn a_slot_that_is_used_up_ends_the_stream(world: World) {
    world.show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    let mut stream = listen(api, &guest).await;
    assert_eq!(stream.ticket().await["status"], "active");
    api.charge(&guest.user, 1_000).await;
    let reservation = api.held(&guest.token, NIGHT, &[1]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    stream.until(|ticket| ticket["status"] == "expired").await;
    assert_eq!(stream.next().await, Said::End);
}

async fn a_closed_queue_keeps_its_streams(world: World) {
    world.queue(SHOW, narrow()).await;
    let api = &world.api;
    let inside = api.guest(SHOW).await;
    let guest = api.guest(SHOW).await;
    let mut stream = listen(api, &guest).await;
    assert_eq!(stream.ticket().await["position"], 1);
    world.queue(SHOW, json!({"mode": "closed", "max_active": 1})).await;
    leave(api, &inside).await;
    let moved = stream.until(|ticket| ticket["status"] != "waiting" || ticket["position"] != 1);
    let moved = tokio::time::timeout(Duration::from_secs(2), moved).await;
    assert!(moved.is_err(), "nobody is let in, and the place is kept: {moved:?}");
    world.queue(SHOW, narrow()).await;
    stream.until(|ticket| ticket["status"] == "active").await;
}

async fn who_waits_is_told_that_all_is_sold(world: World) {
    world.queue(SHOW, narrow()).await;
    world.concert(SHOW, crate::support::world::show(2, 1_000)).await;
    let api = &world.api;
    let buyer = api.guest(SHOW).await;
    let guest = api.guest(SHOW).await;
    let mut stream = listen(api, &guest).await;
    assert_eq!(stream.ticket().await["sold_out"], json!(false));
    // The slot that the payment frees goes to nobody, so that the place stays what it is.
    let mut paused = narrow();
    paused["mode"] = json!("paused");
    world.queue(SHOW, paused).await;
    api.charge(&buyer.user, 2_000).await;
    let reservation = api.held(&buyer.token, NIGHT, &[1, 2]).await;
    api.pay(&buyer.token, &reservation, &new_key()).await.expect(201);
    let ticket = stream.until(|ticket| ticket["sold_out"] == json!(true)).await;
    assert_eq!((&ticket["status"], &ticket["position"]), (&json!("waiting"), &json!(1)));
    assert_eq!(api.get("/v1/queues/show").send().await.expect(200)["sold_out"], json!(true));
}

async fn who_comes_back_is_told_the_present(world: World) {
    world.queue(SHOW, narrow()).await;
    let api = &world.api;
    let _inside = api.guest(SHOW).await;
    let (second, third) = (api.guest(SHOW).await, api.guest(SHOW).await);
    let mut stream = listen(api, &third).await;
    assert_eq!(stream.ticket().await["position"], 2);
    drop(stream);
    leave(api, &second).await;
    for api in (0..api.instances()).map(|at| api.only(at)) {
        crate::support::eventually("every instance knows that the place was given up", || async {
            (api.poll(SHOW, &third.token).await.expect(200)["position"] == 1).then_some(())
        })
        .await;
    }
    // Tickets are states, not messages: there is nothing to be made up for, whatever was heard last. By the query, as a browser must.
    let url = format!("{}{EVENTS}?token={}", api.public(), third.token);
    let mut stream = Sse::open(&url, &[("last-event-id", "7")]).await;
    let ticket = stream.ticket().await;
    assert_eq!((&ticket["status"], &ticket["position"]), (&json!("waiting"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_beats_while_nothing_happens_and_ends_with_the_instance() {
    let world = World::start(1).await;
    world.queue(SHOW, narrow()).await;
    let (_inside, guest) = (world.api.guest(SHOW).await, world.api.guest(SHOW).await);
    let mut stream = listen(&world.api, &guest).await;
    assert_eq!(stream.ticket().await["position"], 1);
    let began = Instant::now();
    assert_eq!(stream.next().await, Said::Heartbeat);
    assert!(began.elapsed() >= Duration::from_secs(10), "a beat in fifteen seconds is enough");
    let (stores, said) = tokio::join!(world.stop(), stream.next());
    assert_eq!(said, Said::End, "a body with its end, not a connection that breaks");

    // The place outlives the instance.
    let world = World::on(stores, 1).await;
    assert_eq!(listen(&world.api, &guest).await.ticket().await["position"], 1);
}

/// The calls of a script that a process has made, by its own count.
async fn calls(api: &Api, script: &str) -> u64 {
    let text =
        api.keyless_admin_call(reqwest::Method::GET, "/metrics").send().await.expect_text(200);
    let start = format!("usher_script_calls_total{{script=\"{script}\"");
    let counts = text.lines().filter(|line| line.starts_with(&start));
    counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_ask_redis_no_more_than_one() {
    let stores = Stores::new().await;
    let process = Process::start(&stores).await;
    let api = Api::new(vec![[process.public.clone(), process.admin.clone()]]);
    let settings = json!({"promote_per_interval": 1, "interval_ms": 3_600_000, "max_active": 1});
    api.put("/admin/queues/show", &settings).await.expect(200);
    api.guest(SHOW).await;
    let wanted =
        std::env::var("USHER_STREAMS").ok().map_or(2_000, |streams| streams.parse().unwrap());
    let streams = file_descriptors::room_for(wanted).min(wanted);
    eprintln!("{streams} streams");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}{EVENTS}", process.public);
    let opening = futures::stream::iter(0..streams).map(async |_| {
        let guest = api.guest(SHOW).await;
        let mut stream = Sse::open_with(&client, &url, &[("queue-token", &guest.token)]).await;
        let first = stream.ticket().await;
        assert_eq!(first["status"], "waiting");
        (guest, stream, first["position"].as_u64().unwrap())
    });
    let mut open: Vec<_> = opening.buffer_unordered(64).collect().await;

    let began = Instant::now();
    let before = (calls(&api, "queue/poll").await, calls(&api, "queue/snapshot").await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = (calls(&api, "queue/poll").await, calls(&api, "queue/snapshot").await);
    assert_eq!(after.0 - before.0, 0, "who waits is told from memory");
    // Two looks a second, at most twice each.
    let most = (began.elapsed().as_secs() + 1) * 4 + 2;
    let looks = after.1 - before.1;
    assert!(
        (1..=most).contains(&looks),
        "{looks} looks for {streams} streams, {most} expected at most"
    );

    // They are alive: when the first in line leaves, whoever stands behind hears it.
    open.sort_by_key(|(_, _, position)| *position);
    let (first, rest) = open.split_first_mut().unwrap();
    leave(&api, &first.0).await;
    first.1.until(|ticket| ticket["status"] == "expired").await;
    for (_, stream, position) in rest {
        let ticket = stream.until(|ticket| ticket["position"].as_u64() < Some(*position)).await;
        assert_eq!(ticket["status"], "waiting");
    }
    let asked = calls(&api, "queue/poll").await - before.0;
    assert!(asked <= 1, "{asked} asked Redis, though the front has passed only the one who left");
    process.kill().await;
}
