//! Estimated waits against the real ones, and the measurement of visits from which they are
//! forecast.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::support::{ApiClient, CONCERT, SCHEDULE, TestWorld, eventually, new_key, new_user};

const ACTIVE_SLOTS: usize = 5;

/// A queue with few slots and a fast promoter.
fn settings(more: Value) -> Value {
    let mut settings = json!({"promote_per_interval": 1_000, "interval_ms": 100});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

/// The fields of the queue's hash `turnover`.
async fn turnover(world: &TestWorld) -> BTreeMap<String, String> {
    let key = world.stores.key(world.stores.partition_of(CONCERT), "q:show:turnover");
    let fields = world.stores.redis().await.hash(&key).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    fields.into_iter().map(|(field, value)| (text(field), text(value))).collect()
}

/// The sum of the counts of one kind.
fn total(fields: &BTreeMap<String, String>, kind: &str) -> f64 {
    let counts = fields.iter().filter(|(field, _)| {
        let bin = field.strip_prefix(kind);
        bin.is_some_and(|bin| bin.bytes().all(|byte| byte.is_ascii_digit()))
    });
    counts.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

/// A wait that was reported to a user: when, and how many seconds.
type ReportedWait = (Instant, Option<f64>);

/// Polls as asked until the user is admitted. Returns the score and the reported waits.
async fn poll_until_active(api: &ApiClient) -> (u64, Vec<ReportedWait>) {
    let mut ticket = api.join(CONCERT, &new_user()).await.expect(201);
    let token = ticket["token"].as_str().unwrap().to_owned();
    let mut reported = Vec::new();
    while ticket["status"] == "waiting" {
        reported.push((Instant::now(), ticket["estimated_wait_seconds"].as_f64()));
        let pause = ticket["poll_after_ms"].as_u64().unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        ticket = api.poll(CONCERT, &token).await.expect(200);
    }
    assert_eq!(ticket["status"], "active");
    (ticket["score"].as_u64().unwrap(), reported)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn estimate_is_close_to_the_real_wait() {
    let world = TestWorld::start(1).await;
    let limits = json!({"max_active": ACTIVE_SLOTS, "active_seconds": 2, "claim_seconds": 20});
    world.put_queue(CONCERT, settings(limits)).await;
    let users = 6 * ACTIVE_SLOTS;
    let mut polls: FuturesUnordered<_> =
        (0..users).map(|_| poll_until_active(&world.api)).collect();

    // Reads from Redis when each user is admitted: a poll sees it later.
    let mut redis = world.stores.redis().await;
    let slots = world.stores.key(world.stores.partition_of(CONCERT), "q:show:admitted");
    let mut admitted: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut waits = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while waits.len() < users {
        tokio::select! {
            Some(user) = polls.next() => waits.push(user),
            _ = tick.tick() => {
                for slot in redis.ask(&["HVALS", &slots]).await.list() {
                    let slot = slot.text();
                    let score = slot.split(' ').next().unwrap().parse().unwrap();
                    admitted.entry(score).or_insert_with(Instant::now);
                }
            }
        }
    }

    // Judged from the moment at which as many visits have ended as there are slots. Each report
    // counts until the next one.
    let from = *admitted.values().nth(2 * ACTIVE_SLOTS - 1).unwrap();
    let (mut judged, mut close) = (Duration::ZERO, Duration::ZERO);
    for (score, reported) in &waits {
        let end = admitted[score];
        for (nth, (at, wait)) in reported.iter().enumerate() {
            let until = reported.get(nth + 1).map_or(end, |(next, _)| *next).min(end);
            if *at < from || *at >= until {
                continue;
            }
            let real = (end - *at).as_secs_f64();
            let wait = wait.expect("the wait is known once slots have become free");
            judged += until - *at;
            if (wait - real).abs() <= 0.25 * real + 3.0 {
                close += until - *at;
            }
        }
    }
    println!("{close:?} of {judged:?} within 25 % and 3 s");
    assert!(judged > Duration::from_secs(10), "too few reports: {judged:?}");
    assert!(2 * close >= judged, "only {close:?} of {judged:?} within 25 % and 3 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn estimate_is_null_until_a_slot_is_free_and_while_paused() {
    let world = TestWorld::start(1).await;
    let api = &world.api;
    let known = async |token: &str| {
        let ticket = api.poll(CONCERT, token).await.expect(200);
        assert_eq!(ticket["status"], "waiting");
        ticket["estimated_wait_seconds"].is_u64()
    };
    world.put_queue(CONCERT, settings(json!({"max_active": 1}))).await;
    let first = api.join_new_user(CONCERT).await;
    let (next, last) = (api.join_new_user(CONCERT).await, api.join_new_user(CONCERT).await);
    assert!(!known(&next.token).await && !known(&last.token).await);
    api.delete("/v1/queues/show/tokens/me").token(&first.token).send().await.expect(204);
    eventually("the wait is known", async || known(&last.token).await.then_some(())).await;
    let paused = settings(json!({"max_active": 1, "mode": "paused"}));
    world.put_queue(CONCERT, paused).await;
    eventually("the wait is unknown", async || (!known(&last.token).await).then_some(())).await;
    world.put_queue(CONCERT, settings(json!({"max_active": 1}))).await;
    eventually("the wait is known", async || known(&last.token).await.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_visit_is_counted_once() {
    let world = TestWorld::start(1).await;
    let api = &world.api;
    world.put_queue(CONCERT, settings(json!({"max_active": 1, "claim_seconds": 1}))).await;
    world.put_concert(CONCERT, crate::support::world::concert_definition(10, 1_000)).await;
    let leave = async |token: &str| {
        api.delete("/v1/queues/show/tokens/me").token(token).send().await.expect(204);
    };
    let ended = async |count: u32| {
        eventually("the visit ends", async || {
            let fields = turnover(&world).await;
            (fields.get("ended")?.parse::<u32>().unwrap() >= count).then_some(fields)
        })
        .await
    };

    // The first user is admitted directly and leaves. The next one does not show up.
    let first = api.join_new_user(CONCERT).await;
    let no_show = api.join_new_user(CONCERT).await;
    leave(&first.token).await;
    let fields = ended(1).await;
    assert_eq!((total(&fields, "e"), total(&fields, "s")), (1.0, 0.0));
    assert_eq!(fields["filled"], "0");
    let fields = ended(2).await;
    assert_eq!(total(&fields, "n").round(), 1.0);
    api.wait_until_expired(CONCERT, &no_show.token).await;

    // A promoted user shows up with a poll, holds and pays.
    world.put_queue(CONCERT, settings(json!({"max_active": 1}))).await;
    let first = api.active_user(CONCERT).await;
    let buyer = api.join_new_user(CONCERT).await;
    leave(&first.token).await;
    api.wait_until_active(CONCERT, &buyer).await;
    api.charge(&buyer.user, 1_000).await;
    let reservation = api.hold_seats(&buyer.token, SCHEDULE, &[1]).await;
    api.pay(&buyer.token, &reservation, &new_key()).await.expect(201);
    let fields = ended(4).await;
    let counts = ["n", "s", "e", "l", "x"].map(|kind| total(&fields, kind).round());
    assert_eq!(counts, [1.0, 1.0, 3.0, 0.0, 0.0]);

    // A visit that lapses.
    world.put_queue(CONCERT, settings(json!({"max_active": 1, "active_seconds": 1}))).await;
    api.active_user(CONCERT).await;
    let fields = ended(5).await;
    assert_eq!(total(&fields, "l").round(), 1.0);

    // A new opening starts the measurement again. A change of other settings does not.
    world.put_queue(CONCERT, settings(json!({"max_active": 2}))).await;
    assert_eq!(turnover(&world).await["ended"], "5");
    world.put_queue(CONCERT, settings(json!({"mode": "closed"}))).await;
    assert_eq!(turnover(&world).await["ended"], "5");
    world.put_queue(CONCERT, settings(json!({}))).await;
    assert_eq!(turnover(&world).await, BTreeMap::new());
}

/// The same pairs as in `src/queue/estimator/tests.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn age_bins_of_the_script_are_those_of_the_service() {
    let world = TestWorld::start(1).await;
    let prelude = "local now, AGE_BINS, turnover, settings = 0, 250, KEYS[1], KEYS[1]";
    let library = include_str!("../../../lua/lib/turnover.lua");
    let script = format!("{prelude}\n{library}\nreturn age_bin(tonumber(ARGV[1]))");
    let mut redis = world.stores.redis().await;
    let key = world.stores.key(0, "q:show:turnover");
    for (ms, bin) in [
        (0, 0),
        (249, 0),
        (3_999, 15),
        (4_000, 16),
        (7_999, 31),
        (8_000, 32),
        (60_000, 78),
        (90_000_000, 245),
    ] {
        let ms: i64 = ms;
        let found = redis.ask(&["EVAL", &script, "1", &key, &ms.to_string()]).await.int();
        assert_eq!(found, bin, "{ms}");
    }
}
