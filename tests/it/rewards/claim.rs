//! Claims of rewards: once per user, by the user's facts, with a history entry for every attempt.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestWorld, new_key, new_user, on_one_and_two,
};

const REWARD: &str = "welcome";

on_one_and_two!(
    concurrent_claims_are_paid_once,
    window_follows_the_redis_clock,
    conditions_check_every_fact,
    facts_from_own_records_count,
    merge_keeps_other_facts,
    change_applies_on_every_instance,
    history_is_paged_newest_first,
);

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A reward of 500 points that is open for an hour.
fn open(conditions: Value) -> Value {
    let (starts, ends) = (Utc::now() - TimeDelta::hours(1), Utc::now() + TimeDelta::hours(1));
    json!({"title": "Welcome", "starts_at": text(starts), "ends_at": text(ends), "active": true,
        "conditions": conditions, "reward": {"kind": "points", "amount": 500}})
}

async fn put(world: &TestWorld, reward: &Value) {
    let made = world.api.put(&format!("/admin/rewards/{REWARD}"), reward).await.expect(200);
    assert_eq!(made["definition"]["conditions"], reward["conditions"]);
    let is_made = |body: &Value| {
        reward.as_object().expect("an object").iter().all(|(field, value)| body[field] == *value)
    };
    world.wait_on_every_instance(&format!("/v1/rewards/{REWARD}"), is_made).await;
}

async fn claim(api: &ApiClient, user: &str) -> ApiResponse {
    api.post(&format!("/v1/rewards/{REWARD}/claims")).user(user).send().await
}

async fn set_facts(api: &ApiClient, user: &str, facts: Value) -> ApiResponse {
    api.put(&format!("/admin/users/{user}/facts"), &facts).await
}

type HistoryLine = (String, Option<String>, u64);

fn refused(reason: &str, attempts: u64) -> HistoryLine {
    ("failed".into(), Some(reason.into()), attempts)
}

/// A user's history as (status, reason, attempts), newest first.
async fn history(api: &ApiClient, user: &str) -> Vec<HistoryLine> {
    let path = format!("/v1/rewards/{REWARD}/claims/mine?limit=500");
    let list = api.get(&path).user(user).send().await.expect(200);
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let lines = list["items"].as_array().expect("a list").iter();
    let line = |line: &Value| {
        let attempts = line["attempts"].as_u64().expect("a number");
        (word(&line["status"]).expect("a status"), word(&line["reason"]), attempts)
    };
    lines.map(line).collect()
}

async fn concurrent_claims_are_paid_once(world: TestWorld) {
    put(&world, &open(json!([]))).await;
    let user = new_user();
    let claims = join_all((0..100).map(|_| claim(&world.api, &user))).await;
    let granted: Vec<_> = claims.iter().filter(|claim| claim.status == 201).collect();
    assert_eq!(granted.len(), 1);
    let body = granted[0].expect(201);
    assert_eq!(
        (&body["code"], &body["status"], &body["user_id"]),
        (&json!(REWARD), &json!("success"), &json!(user))
    );
    assert_eq!(body["reward"], json!({"kind": "points", "amount": 500}));
    for refused in claims.iter().filter(|claim| claim.status != 201) {
        refused.problem(409, "already_claimed");
    }
    // Immediately: the money, the grant, and one entry that counts the refusals.
    assert_eq!(world.api.balance(&user).await, 500);
    let mut lines = history(&world.api, &user).await;
    lines.sort();
    assert_eq!(lines, [refused("already_claimed", 99), ("success".into(), None, 1)]);
    world.stores.audit().await;
    let paid = world
        .stores
        .count("SELECT COUNT(*) FROM wallet_entries WHERE kind = 'reward' AND amount = 500")
        .await;
    assert_eq!(paid, 1);
    assert_eq!(world.stores.count("SELECT COUNT(*) FROM reward_claims").await, 2);
}

/// The clock of Redis.
async fn redis_now(world: &TestWorld) -> DateTime<Utc> {
    let time = world.stores.redis().await.ask(&["TIME"]).await.list();
    let mut numbers = time.into_iter().map(|word| word.int());
    let (seconds, micros) =
        (numbers.next().expect("seconds"), numbers.next().expect("microseconds"));
    DateTime::from_timestamp_millis(seconds * 1_000 + micros / 1_000).expect("a time")
}

async fn window_follows_the_redis_clock(world: TestWorld) {
    let now = redis_now(&world).await;
    let (starts, ends) = (now + TimeDelta::milliseconds(900), now + TimeDelta::milliseconds(1_800));
    let mut reward = open(json!([]));
    reward["starts_at"] = json!(text(starts));
    reward["ends_at"] = json!(text(ends));
    put(&world, &reward).await;
    let (mut early, mut granted, mut late) = (0, 0, 0);
    while redis_now(&world).await < ends + TimeDelta::milliseconds(200) {
        let before = redis_now(&world).await;
        let answer = claim(&world.api, &new_user()).await;
        let after = redis_now(&world).await;
        if answer.status == 201 {
            let at: DateTime<Utc> =
                answer.body["claimed_at"].as_str().expect("a time").parse().expect("a time");
            assert!(at >= starts && at < ends, "granted outside of the window: {at}");
            granted += 1;
        } else if answer.body["code"] == "not_started" {
            answer.problem(403, "not_started");
            assert!(before < starts, "refused after the start");
            early += 1;
        } else {
            answer.problem(403, "ended");
            assert!(after >= ends, "refused before the end");
            late += 1;
        }
    }
    assert!(early > 0 && granted > 0 && late > 0, "{early} {granted} {late}");
}

async fn conditions_check_every_fact(world: TestWorld) {
    let api = &world.api;
    let conditions = json!([
        {"fact": "login_days", "op": ">=", "value": 7},
        {"fact": "complaints", "op": "<=", "value": 2},
        {"fact": "tier", "op": "==", "value": -3},
        {"fact": "blocked", "op": "!=", "value": 1},
    ]);
    put(&world, &open(conditions.clone())).await;
    let user = new_user();
    // No facts are known: all are 0.
    let refusal = claim(api, &user).await.problem(403, "condition_not_met");
    assert_eq!(refusal["unmet"], json!([conditions[0], conditions[2]]));
    for (facts, unmet) in [
        (json!({"login_days": 6, "tier": -3}), vec![0]),
        (json!({"login_days": 7, "complaints": 3, "tier": -3}), vec![1]),
        (json!({"login_days": 8, "tier": 3, "blocked": 1}), vec![2, 3]),
        // Omitted facts are deleted.
        (json!({}), vec![0, 2]),
        (json!({"login_days": 9_007_199_254_740_991_i64, "tier": -4}), vec![2]),
    ] {
        let set = set_facts(api, &user, facts.clone()).await.expect(200);
        assert_eq!(set, json!({"user_id": user, "facts": facts}));
        let refusal = claim(api, &user).await.problem(403, "condition_not_met");
        let expected: Vec<_> = unmet.iter().map(|at: &usize| conditions[*at].clone()).collect();
        assert_eq!(refusal["unmet"], json!(expected), "{facts}");
    }
    let good = json!({"login_days": 7, "complaints": 2, "tier": -3, "blocked": 2, "colour": 5});
    set_facts(api, &user, good).await.expect(200);
    claim(api, &user).await.expect(201);
    claim(api, &user).await.problem(409, "already_claimed");
    let lines = history(api, &user).await;
    let granted = ("success".into(), None, 1);
    assert_eq!(lines, [refused("already_claimed", 1), granted, refused("condition_not_met", 6)]);
    world.stores.audit().await;
    assert_eq!(
        world
            .stores
            .count("SELECT CAST(JSON_EXTRACT(facts, '$.colour') AS SIGNED) FROM user_facts")
            .await,
        5
    );
}

async fn facts_from_own_records_count(world: TestWorld) {
    world.put_show(10, 3_000).await;
    let api = &world.api;
    let conditions = json!([
        {"fact": "paid_total", "op": ">=", "value": 6_000},
        {"fact": "reservations_confirmed", "op": "==", "value": 2},
    ]);
    put(&world, &open(conditions.clone())).await;
    let user = new_user();
    let guest = async |seat: u32| {
        let ticket = api.join(CONCERT, &user).await;
        let token = ticket.body["token"].as_str().expect("a token").to_owned();
        (api.hold_seats(&token, SCHEDULE, &[seat]).await, token)
    };
    let (first, token) = guest(1).await;
    api.charge(&user, 2_999).await;
    // A declined payment counts for nothing.
    api.pay(&token, &first, &new_key()).await.problem(402, "insufficient_balance");
    assert_eq!(claim(api, &user).await.problem(403, "condition_not_met")["unmet"], conditions);
    api.charge(&user, 10_000).await;
    let key = new_key();
    for _ in 0..3 {
        api.pay(&token, &first, &key).await.expect(201);
    }
    assert_eq!(claim(api, &user).await.problem(403, "condition_not_met")["unmet"], conditions);
    // A use is not a payment.
    let uses =
        api.post("/v1/wallet/uses").user(&user).key(&new_key()).json(&json!({"amount": 3_000}));
    uses.send().await.expect(201);
    claim(api, &user).await.problem(403, "condition_not_met");
    let (second, token) = guest(2).await;
    api.pay(&token, &second, &new_key()).await.expect(201);
    claim(api, &user).await.expect(201);
    assert_eq!(api.balance(&user).await, 12_999 - 9_000 + 500);
    world.stores.audit().await;
}

/// A reward is switched off while its users claim it: claims after the response are refused on
/// every instance.
async fn change_applies_on_every_instance(world: TestWorld) {
    put(&world, &open(json!([]))).await;
    let mut off = open(json!([]));
    off["active"] = json!(false);
    for _ in 0..5 {
        world.api.put(&format!("/admin/rewards/{REWARD}"), &open(json!([]))).await.expect(200);
        let granted =
            join_all((0..20).map(async |_| claim(&world.api, &new_user()).await.status)).await;
        assert!(granted.iter().all(|status| *status == 201), "{granted:?}");
        world.api.put(&format!("/admin/rewards/{REWARD}"), &off).await.expect(200);
        let refused = join_all((0..20).map(|n| {
            let api = world.api.for_instance(n % world.api.instances());
            async move { claim(&api, &new_user()).await }
        }))
        .await;
        for refused in refused {
            refused.problem(403, "inactive");
        }
    }
    // Another amount: the response and the wallet agree.
    let mut more = open(json!([]));
    for amount in [1, 700, 31] {
        more["reward"]["amount"] = json!(amount);
        world.api.put(&format!("/admin/rewards/{REWARD}"), &more).await.expect(200);
        for at in 0..world.api.instances() {
            let (api, user) = (world.api.for_instance(at), new_user());
            assert_eq!(claim(&api, &user).await.expect(201)["reward"]["amount"], amount);
            assert_eq!(api.balance(&user).await, amount);
        }
    }
    world.stores.audit().await;
}

async fn history_is_paged_newest_first(world: TestWorld) {
    put(&world, &open(json!([{"fact": "vip", "op": "==", "value": 1}]))).await;
    let users: Vec<String> = (0..10).map(|_| new_user()).collect();
    for (n, user) in users.iter().enumerate() {
        set_facts(&world.api, user, json!({"vip": n % 2})).await.expect(200);
        let status = claim(&world.api, user).await.status;
        assert_eq!(status, if n % 2 == 1 { 201 } else { 403 });
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let list = async |query: &str| {
        world
            .api
            .admin_call(Method::GET, &format!("/admin/rewards/{REWARD}/claims{query}"))
            .send()
            .await
    };
    let users_of = |page: &Value| {
        let items = page["items"].as_array().expect("a list").iter();
        items.map(|line| line["user_id"].as_str().expect("a user").to_owned()).collect::<Vec<_>>()
    };
    let mut expected: Vec<String> = users.clone();
    expected.reverse();
    let first = list("?limit=4").await.expect(200);
    let rest = list(&format!("?limit=6&before={}", first["next"].as_str().expect("more")))
        .await
        .expect(200);
    assert_eq!([users_of(&first), users_of(&rest)].concat(), expected);
    assert_eq!(rest["next"], Value::Null);
    for (status, parity) in [("success", 1), ("failed", 0)] {
        let page = list(&format!("?status={status}")).await.expect(200);
        let of_parity: Vec<_> =
            (0..10).rev().filter(|n| n % 2 == parity).map(|n| users[n].clone()).collect();
        assert_eq!(users_of(&page), of_parity);
        assert!(
            page["items"].as_array().expect("a list").iter().all(|line| line["status"] == status)
        );
    }
    for bad in ["?status=open", "?limit=0", "?before=x", "?colour=red"] {
        list(bad).await.problem(422, "invalid_request");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_fields_are_named() {
    let world = TestWorld::start(1).await;
    let api = &world.api;
    let path = format!("/admin/rewards/{REWARD}");
    for (field, values, blamed) in [
        ("title", vec![json!(""), json!("x".repeat(256)), json!(5), Value::Null], "title"),
        (
            "starts_at",
            vec![json!("soon"), json!(5), Value::Null, json!("1969-12-31T23:59:59Z")],
            "starts_at",
        ),
        ("ends_at", vec![json!("soon"), Value::Null, json!("2001-01-01T00:00:00Z")], "ends_at"),
        ("active", vec![json!("yes"), json!(1), Value::Null], "active"),
        ("code", vec![json!("other"), json!("a b")], "code"),
        ("conditions", vec![json!({}), Value::Null], "conditions"),
        (
            "conditions",
            vec![
                json!([{"fact": "a b", "op": ">=", "value": 1}]),
                json!([{"op": ">=", "value": 1}]),
            ],
            "conditions[0].fact",
        ),
        (
            "conditions",
            vec![
                json!([{"fact": "a", "op": "~", "value": 1}]),
                json!([{"fact": "a", "op": ">", "value": 1}]),
            ],
            "conditions[0].op",
        ),
        (
            "conditions",
            vec![
                json!([{"fact": "a", "op": ">=", "value": 1.5}]),
                json!([{"fact": "a", "op": ">=", "value": 9_007_199_254_740_992_i64}]),
            ],
            "conditions[0].value",
        ),
        ("colour", vec![json!("red")], "colour"),
    ] {
        for value in values {
            let mut reward = open(json!([]));
            reward[field] = value.clone();
            let refusal = api.put(&path, &reward).await.problem(422, "invalid_request");
            assert_eq!(refusal["errors"][0]["field"], blamed, "{field}: {value}: {refusal}");
        }
    }
    for gift in [
        Value::Null,
        json!({}),
        json!({"kind": "points"}),
        json!({"kind": "gold", "amount": 1}),
        json!({"kind": "points", "amount": 0}),
        json!({"kind": "points", "amount": -5}),
        json!({"kind": "points", "amount": 1.5}),
        json!({"kind": "points", "amount": 9_007_199_254_740_992_i64}),
        json!({"kind": "points", "amount": 5, "colour": "red"}),
    ] {
        let mut reward = open(json!([]));
        reward["reward"] = gift.clone();
        let refusal = api.put(&path, &reward).await.problem(422, "invalid_request");
        let field = refusal["errors"][0]["field"].as_str().expect("a field");
        assert!(field.starts_with("reward"), "{gift}: {refusal}");
    }
    api.put("/admin/rewards/a%20b", &open(json!([]))).await.problem(422, "invalid_request");

    let user = new_user();
    for (facts, field) in [
        (json!({"login_days": "7"}), "login_days"),
        (json!({"login_days": 1.5}), "login_days"),
        (json!({"login_days": null}), "login_days"),
        (json!({"login_days": 9_007_199_254_740_992_i64}), "login_days"),
        (json!({"login_days": 9_223_372_036_854_775_808_u64}), "login_days"),
        (json!({"a b": 1}), "a b"),
        (json!({"paid_total": 1}), "paid_total"),
        (json!({"reservations_confirmed": 1}), "reservations_confirmed"),
    ] {
        let refusal = set_facts(api, &user, facts.clone()).await.problem(422, "invalid_request");
        assert_eq!(refusal["errors"][0]["field"], field, "{facts}: {refusal}");
    }
    set_facts(api, "a%20b", json!({})).await.problem(422, "invalid_request");
    set_facts(api, &user, json!([1])).await.problem(422, "invalid_request");

    for path in ["/v1/rewards/none", "/v1/rewards/a%20b"] {
        api.get(path).send().await.problem(404, "not_found");
        api.post(&format!("{path}/claims")).user(&user).send().await.problem(404, "not_found");
        api.get(&format!("{path}/claims/mine")).user(&user).send().await.problem(404, "not_found");
    }
    api.admin_call(Method::GET, "/admin/rewards/none/claims")
        .send()
        .await
        .problem(404, "not_found");
    put(&world, &open(json!([]))).await;
    api.post(&format!("/v1/rewards/{REWARD}/claims")).send().await.problem(401, "unauthenticated");
    api.get(&format!("/v1/rewards/{REWARD}/claims/mine"))
        .send()
        .await
        .problem(401, "unauthenticated");
}

async fn merge_keeps_other_facts(world: TestWorld) {
    let (api, user) = (&world.api, new_user());
    let merge = async |changes: Value| {
        api.admin_call(Method::PATCH, &format!("/admin/users/{user}/facts"))
            .json(&changes)
            .send()
            .await
    };
    let largest = 9_007_199_254_740_991_i64;
    let all = |facts: Value| json!({"user_id": user, "facts": facts});
    let merged = merge(json!({"login_days": 7, "debt": -largest})).await.expect(200);
    assert_eq!(merged, all(json!({"login_days": 7, "debt": -largest})));
    let merged = merge(json!({"level": largest, "debt": null, "unknown": null})).await;
    assert_eq!(merged.expect(200), all(json!({"login_days": 7, "level": largest})));
    assert_eq!(merge(json!({})).await.expect(200), all(json!({"login_days": 7, "level": largest})));
    put(
        &world,
        &open(json!([{"fact": "login_days", "op": ">=", "value": 7},
        {"fact": "level", "op": "==", "value": largest}])),
    )
    .await;
    claim(api, &user).await.expect(201);
    // The number of all facts is limited, not that of a change.
    let many: serde_json::Map<_, _> = (0..98).map(|n| (format!("f{n}"), json!(1))).collect();
    merge(many.into()).await.expect(200);
    merge(json!({"more": 1})).await.problem(422, "invalid_request");
    merge(json!({"more": 1, "f0": null})).await.expect(200);
    world.stores.audit().await;
    let every: serde_json::Map<_, _> = (1..98).map(|n| (format!("f{n}"), Value::Null)).collect();
    merge(every.into()).await.expect(200);
    let none = merge(json!({"more": null, "level": null, "login_days": null})).await.expect(200);
    assert_eq!(none, all(json!({})));
    world.stores.audit().await;
}

/// A wallet that cannot hold the points refuses the claim, which succeeds once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_never_overflow_a_wallet() {
    let world = TestWorld::start(1).await;
    put(&world, &open(json!([]))).await;
    let user = new_user();
    world.api.charge(&user, 9_007_199_254_740_991 - 499).await;
    claim(&world.api, &user).await.problem(422, "balance_limit_exceeded");
    let uses =
        world.api.post("/v1/wallet/uses").user(&user).key(&new_key()).json(&json!({"amount": 1}));
    uses.send().await.expect(201);
    claim(&world.api, &user).await.expect(201);
    assert_eq!(world.api.balance(&user).await, 9_007_199_254_740_991);
    world.stores.audit().await;
}

/// Versions that Redis has lost are published again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_versions_are_published_again() {
    let world = TestWorld::start(2).await;
    put(&world, &open(json!([]))).await;
    for partition in 0..crate::support::servers::PARTITIONS {
        world.stores.redis().await.ask(&["DEL", &world.stores.key(partition, "rewards")]).await;
    }
    let claims = join_all((0..50).map(async |_| claim(&world.api, &new_user()).await.status)).await;
    assert!(claims.iter().all(|status| *status == 201), "{claims:?}");
}
