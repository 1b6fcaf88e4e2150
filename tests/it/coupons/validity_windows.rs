//! The edges of the windows of coupons and rewards, to the millisecond. The scripts run in Redis
//! with a clock that the test sets, on settings that the API published.

use chrono::DateTime;
use serde_json::json;
use usher::redis::{LuaScript, scripts};

use crate::support::resp::RespValue;
use crate::support::{TestWorld, new_user};

/// The window, milliseconds since 1970. Far from the present, so that the real clock cannot matter.
const STARTS: i64 = 2_000_000_000_000;
const ENDS: i64 = STARTS + 5_000;

/// The time of a run, and whether the window is open.
const EDGES: [(i64, &str); 4] =
    [(STARTS - 1, "not started"), (STARTS, "open"), (ENDS - 1, "open"), (ENDS, "ended")];

/// Runs a script as if the clock of Redis showed `at`.
pub(super) async fn run_at(
    world: &TestWorld,
    at: i64,
    script: &LuaScript,
    key: impl Fn(&str) -> String,
    args: &[&str],
) -> Vec<RespValue> {
    let clock = format!("{{'{}','{}'}}", at / 1_000, at % 1_000 * 1_000);
    let body = script.body().replace("redis.call('TIME')", &clock);
    assert_ne!(body, script.body(), "the clock was set");
    let mut redis = world.stores.redis().await;
    let keys: Vec<String> = script.keys().iter().map(|word| key(word)).collect();
    let count = keys.len().to_string();
    let generation = redis.ask(&["GET", &keys[0]]).await.text();
    let words = ["EVAL", &body, &count].into_iter().chain(keys.iter().map(String::as_str));
    let words: Vec<&str> = words.chain([generation.as_str()]).chain(args.iter().copied()).collect();
    redis.ask(&words).await.list()
}

fn time(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis).unwrap().to_rfc3339()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coupon_window_is_exact_to_the_millisecond() {
    let world = TestWorld::start(1).await;
    let coupon = json!({"title": "C", "total_quantity": null, "discount_amount": 1,
        "min_available_amount": 0,
        "issue_starts_at": time(STARTS), "issue_ends_at": time(ENDS)});
    world.api.put("/admin/coupons/edge", &coupon).await.expect(200);
    let partition = world.stores.partition_of("edge");
    let key = |word: &str| world.stores.key(partition, &word.replacen("c:", "c:edge:", 1));
    for (at, (now, expected)) in (0..).zip(EDGES) {
        // Any sixteen bytes are a valid id.
        let request = format!("a-user-named-{at:03}an-issue-no-{at:04}");
        let reply = run_at(&world, now, &scripts::COUPONS_ISSUE, key, &["edge", &request]).await;
        let state = match &reply[2] {
            RespValue::Int(1) => "open",
            RespValue::Int(4) => "not started",
            RespValue::Int(5) => "ended",
            other => panic!("{other:?}"),
        };
        assert_eq!((reply[0].clone().int(), state), (now, expected));
    }
    // A user with an issue gets it before the start and after the end, too.
    for now in [STARTS - 1, ENDS] {
        let request = "a-user-named-001another-issue-id";
        let reply = run_at(&world, now, &scripts::COUPONS_ISSUE, key, &["edge", request]).await;
        let words = reply[2].clone().list();
        assert_eq!(
            (words[0].clone().int(), words[1].clone().text()),
            (2, "an-issue-no-0001".to_owned())
        );
    }
    let shown = world.api.get("/v1/coupons/edge").send().await.expect(200);
    assert_eq!((&shown["status"], &shown["issued_quantity"]), (&json!("scheduled"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reward_window_is_exact_to_the_millisecond() {
    let world = TestWorld::start(1).await;
    let reward = json!({"title": "R", "starts_at": time(STARTS), "ends_at": time(ENDS),
        "active": true, "conditions": [],
        "reward": {"kind": "points", "amount": 7}});
    world.api.put("/admin/rewards/edge", &reward).await.expect(200);
    let key = |word: &str| world.stores.key(1, word);
    let version = world.stores.redis().await.ask(&["HGET", &key("rewards"), "edge"]).await.text();
    let (starts, ends) = (STARTS.to_string(), ENDS.to_string());
    for (at, (now, expected)) in (0..).zip(EDGES) {
        let terms = ["edge", &version, "1", &starts, &ends, "7", "9007199254740991", "", "0"];
        let ids = [
            format!("a-user-named-{at:03}"),
            format!("a-claim-no-{at:05}"),
            format!("an-entry-no-{at:04}"),
        ];
        let args: Vec<&str> = terms.into_iter().chain(ids.iter().map(String::as_str)).collect();
        let reply = run_at(&world, now, &scripts::REWARDS_CLAIM, key, &args).await;
        let state = match reply[1].clone().list()[0] {
            RespValue::Int(1) => "open",
            RespValue::Int(4) => "not started",
            RespValue::Int(5) => "ended",
            ref other => panic!("{other:?}"),
        };
        assert_eq!((reply[0].clone().int(), state), (now, expected));
    }
    // By the real clock the window has not started.
    world
        .api
        .post("/v1/rewards/edge/claims")
        .user(&new_user())
        .send()
        .await
        .problem(403, "not_started");
}
