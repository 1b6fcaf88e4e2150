//! The stream of a schedule's seats: what it sends, when it ends, and what it costs.

use std::io::Read;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use flate2::read::GzDecoder;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::api::TestUser;
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{
    ApiClient, CONCERT, EVENT_TIMEOUT, EventStream, SCHEDULE, StreamItem, TestStores, TestWorld,
    UsherProcess, eventually, new_key, on_one_and_two,
};

on_one_and_two!(
    stream_sends_the_state_then_each_change,
    stream_ends_with_the_queue_token,
    stream_extends_a_sliding_visit_only,
    changed_layout_is_announced,
    refused_streams_say_why,
);

const EVENTS: &str = "/v1/schedules/night/seats/events";

async fn listen(api: &ApiClient, guest: &TestUser) -> EventStream {
    EventStream::open(&format!("{}{EVENTS}", api.public()), &[("queue-token", &guest.token)]).await
}

/// The next event. Heartbeats are skipped.
async fn event(stream: &mut EventStream) -> (String, Value) {
    loop {
        match stream.next().await {
            StreamItem::Event { name, data, .. } => return (name, data),
            StreamItem::Heartbeat => {}
            StreamItem::End => panic!("the stream has ended"),
        }
    }
}

/// Applies events until the statuses are these.
async fn until(stream: &mut EventStream, view: &mut String, expected: &str) {
    while view != expected {
        let (name, data) = event(stream).await;
        assert_eq!(name, "seats", "{data}");
        for item in data["items"].as_array().unwrap() {
            let at = usize::try_from(item["number"].as_u64().unwrap()).unwrap() - 1;
            view.replace_range(at..=at, &item["status"].as_str().unwrap()[..1]);
        }
    }
}

async fn stream_sends_the_state_then_each_change(world: TestWorld) {
    world.put_show(5, 1_000).await;
    let api = &world.api;
    let (guest, buyer) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    api.charge(&buyer.user, 1_000).await;
    let held = api.hold_seats(&buyer.token, SCHEDULE, &[2]).await;
    let mut stream = listen(api, &guest).await;
    let StreamItem::Event { name, data, retry } = stream.next().await else {
        panic!("the state comes first")
    };
    assert!(retry.is_some_and(|ms| (2_000..6_000).contains(&ms)), "{retry:?}");
    let view = api.get("/v1/schedules/night/seats?view=status").token(&guest.token).send().await;
    assert_eq!((name.as_str(), &data), ("status", &view.expect(200)));
    let mut view = data["statuses"].as_str().unwrap().to_owned();
    assert_eq!(view, "ahaaa");

    api.pay(&buyer.token, &held, &new_key()).await.expect(201);
    until(&mut stream, &mut view, "asaaa").await;
    let held = api.hold_seats(&guest.token, SCHEDULE, &[1, 5]).await;
    until(&mut stream, &mut view, "hsaah").await;
    api.delete(&format!("/v1/reservations/{held}")).token(&guest.token).send().await.expect(204);
    until(&mut stream, &mut view, "asaaa").await;
    // A hold that expires is reported too, although nothing is written at that moment.
    let mut definition = concert_definition(5, 1_000);
    definition["hold_seconds"] = json!(8);
    world.put_concert(CONCERT, definition).await;
    api.hold_seats(&guest.token, SCHEDULE, &[3]).await;
    until(&mut stream, &mut view, "ashaa").await;
    until(&mut stream, &mut view, "asaaa").await;
}

async fn stream_ends_with_the_queue_token(world: TestWorld) {
    world.put_show(5, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let url = format!("{}{EVENTS}?token={}", api.public(), guest.token);
    let mut stream = EventStream::open(&url, &[]).await;
    assert_eq!(event(&mut stream).await.0, "status");
    api.delete("/v1/queues/show/tokens/me").token(&guest.token).send().await.expect(204);
    assert_eq!(stream.next().await, StreamItem::End);
    api.get(EVENTS).token(&guest.token).send().await.problem(410, "queue_token_expired");
    // A payment uses the token up.
    let buyer = api.active_user(CONCERT).await;
    api.charge(&buyer.user, 1_000).await;
    let mut stream = listen(api, &buyer).await;
    let held = api.hold_seats(&buyer.token, SCHEDULE, &[1]).await;
    api.pay(&buyer.token, &held, &new_key()).await.expect(201);
    while stream.next().await != StreamItem::End {}
}

async fn active_until(api: &ApiClient, token: &str) -> DateTime<Utc> {
    let ticket = api.poll(CONCERT, token).await.expect(200);
    ticket["active_until"].as_str().expect("the user is active").parse().unwrap()
}

async fn stream_extends_a_sliding_visit_only(world: TestWorld) {
    let mut settings = fast_queue_settings();
    settings["active_seconds"] = json!(6);
    settings["visit"] = json!("sliding");
    world.put_queue(CONCERT, settings.clone()).await;
    world.put_concert(CONCERT, concert_definition(5, 1_000)).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let mut stream = listen(api, &guest).await;
    assert_eq!(event(&mut stream).await.0, "status");
    let before = active_until(api, &guest.token).await;
    // Longer than the visit would last without the stream.
    eventually("the stream extends the visit", || async {
        (active_until(api, &guest.token).await > before + Duration::from_secs(7)).then_some(())
    })
    .await;
    settings["visit"] = json!("fixed");
    settings["active_seconds"] = json!(5);
    world.put_queue(CONCERT, settings).await;
    let guest = api.active_user(CONCERT).await;
    let mut stream = listen(api, &guest).await;
    assert_eq!(event(&mut stream).await.0, "status");
    assert_eq!(stream.next().await, StreamItem::End, "the visit is over");
}

async fn changed_layout_is_announced(world: TestWorld) {
    world.put_show(5, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let mut stream = listen(api, &guest).await;
    let (_, before) = event(&mut stream).await;
    world.put_concert(CONCERT, concert_definition(6, 1_000)).await;
    let (name, after) = event(&mut stream).await;
    assert_eq!((name.as_str(), &after["statuses"]), ("status", &json!("aaaaaa")));
    assert_ne!(after["layout_etag"], before["layout_etag"]);
    let layout = api.get("/v1/schedules/night/layout").send().await;
    assert_eq!(layout.header("etag"), after["layout_etag"].as_str());
    // The schedule is gone, so the stream ends.
    world.put_concert(CONCERT, json!({"title": "The show", "schedules": []})).await;
    while stream.next().await != StreamItem::End {}
    api.get(EVENTS).token(&guest.token).send().await.problem(404, "not_found");
}

async fn refused_streams_say_why(world: TestWorld) {
    world.put_show(5, 1_000).await;
    let api = world.api.for_instance(0);
    let guest = api.active_user(CONCERT).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = listen(&api, &guest).await;
        assert_eq!(event(&mut stream).await.0, "status");
        streams.push(stream);
    }
    api.get(EVENTS).token(&guest.token).send().await.problem(503, "overloaded");
    streams.pop();
    eventually("a closed stream is not counted", || async {
        let answer = api.get(EVENTS).token(&guest.token).send_head().await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// The sum of a metric on the only instance.
async fn metric(api: &ApiClient, start: &str) -> u64 {
    let call = api.keyless_admin_call(reqwest::Method::GET, "/metrics");
    let text = call.send().await.expect_text(200);
    let lines = text.lines().filter(|line| line.starts_with(start));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_streams_of_a_schedule_have_one_source() {
    let stores = TestStores::new().await;
    // A process, because the metrics of the tests' own instances are those of all of them.
    let process = UsherProcess::start(&stores).await;
    let api = &ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
    api.put("/admin/queues/show", &fast_queue_settings()).await.expect(200);
    api.put("/admin/concerts/show", &concert_definition(2_000, 1_000)).await.expect(200);
    let opening = futures::stream::iter(0..100).map(async |_| {
        let guest = api.active_user(CONCERT).await;
        let mut stream = listen(api, &guest).await;
        assert_eq!(event(&mut stream).await.0, "status");
        (guest, stream)
    });
    let mut open: Vec<_> = opening.buffer_unordered(16).collect().await;
    assert_eq!(metric(api, "usher_seat_stream_sources ").await, 1);
    api.hold_seats(&open[0].0.token, SCHEDULE, &[7, 1_999]).await;
    for (_, stream) in &mut open {
        let (name, data) = event(stream).await;
        let items = json!([
            {"number": 7, "status": "held"}, {"number": 1_999, "status": "held"}
        ]);
        assert_eq!((name.as_str(), &data["items"]), ("seats", &items));
    }
    assert_eq!(metric(api, "usher_seat_stream_changes_total ").await, 2);
    drop(open);
    eventually("a source without streams ends", || async {
        (metric(api, "usher_seat_stream_sources ").await == 0).then_some(())
    })
    .await;
    process.kill().await;
}

/// Reads a compressed stream until its text has this many events, or until its end.
async fn read_compressed(
    response: &mut reqwest::Response,
    body: &mut Vec<u8>,
    events: usize,
) -> String {
    loop {
        let mut text = Vec::new();
        let is_whole = GzDecoder::new(body.as_slice()).read_to_end(&mut text).is_ok();
        let text = String::from_utf8(text).unwrap();
        if is_whole || text.matches("\nevent: ").count() >= events && text.ends_with("\n\n") {
            return text;
        }
        let chunk = tokio::time::timeout(EVENT_TIMEOUT, response.chunk()).await.unwrap().unwrap();
        body.extend(chunk.expect("the stream goes on"));
    }
}

/// The goal for a visitor in a hall of 50,000 seats: at most 2 KB a second while 100 seats a second
/// change. `USHER_TEST_STREAM_SECONDS` measures for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitor_in_a_large_hall_needs_little_bandwidth() {
    const CHANGES_PER_ROUND: u32 = 100;
    let rounds = std::env::var("USHER_TEST_STREAM_SECONDS").map_or(3, |text| text.parse().unwrap());
    let world = TestWorld::start(1).await;
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let mut definition = concert_definition(50_000, 1_000);
    definition["max_seats_per_user"] = json!(100);
    world.put_concert(CONCERT, definition).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let request = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = request.get(format!("{}{EVENTS}", api.public()));
    let request = request.header("queue-token", &guest.token).header("accept-encoding", "gzip, br");
    let mut response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut body = Vec::new();
    let text = read_compressed(&mut response, &mut body, 1).await;
    assert!(text.contains(&"a".repeat(50_000)));
    let first = body.len();
    let began = Instant::now();
    let mut taken = std::collections::HashSet::new();
    for round in 1..=rounds {
        let buyer = api.active_user(CONCERT).await;
        let mut seats = Vec::new();
        while seats.len() < CHANGES_PER_ROUND as usize {
            let number = rand::random_range(1..=50_000_u32);
            if taken.insert(number) {
                seats.push(number);
            }
        }
        api.hold_seats(&buyer.token, SCHEDULE, &seats).await;
        let text = read_compressed(&mut response, &mut body, 1 + round).await;
        assert_eq!(text.matches("\"held\"").count(), round * CHANGES_PER_ROUND as usize);
    }
    let (bytes, seconds) = (body.len() - first, began.elapsed().as_secs_f64());
    let per_round = bytes / rounds;
    println!(
        "first event {first} bytes; {CHANGES_PER_ROUND} changes {per_round} bytes; \
         {rounds} rounds in {seconds:.1} s"
    );
    assert!(per_round <= 2_000, "{per_round} bytes for {CHANGES_PER_ROUND} changes");
    // The stream ends properly with the instance: checksum and length are right.
    let (_, text) =
        tokio::join!(world.stop(), read_compressed(&mut response, &mut body, usize::MAX));
    assert!(text.ends_with("\n\n"));
    assert!(response.chunk().await.unwrap().is_none());
}
