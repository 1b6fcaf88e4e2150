//! Issue of coupons: the quota is exact and every user gets one, on any instance and at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::StreamExt;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ApiClient, ApiResponse, TestWorld, eventually, new_user, on_one_and_two};

const COUPON: &str = "spring";

on_one_and_two!(
    concurrent_users_get_exactly_the_quota,
    user_keeps_their_one_issue,
    window_follows_the_redis_clock,
    quota_is_never_below_the_issued_count,
    raised_quota_applies_on_every_instance,
    coupon_ended_early_is_refused,
    coupon_without_quota_is_unlimited,
    lists_are_paged_newest_first,
);

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A coupon that is open for an hour.
fn open(total: Value) -> Value {
    let (starts, ends) = (Utc::now() - TimeDelta::hours(1), Utc::now() + TimeDelta::hours(1));
    json!({"title": "Spring", "total_quantity": total, "discount_amount": 2_000,
        "min_available_amount": 5_000,
        "issue_starts_at": text(starts), "issue_ends_at": text(ends)})
}

async fn put(world: &TestWorld, coupon: &Value) -> Value {
    let made = world.api.put(&format!("/admin/coupons/{COUPON}"), coupon).await.expect(200);
    let same = |body: &Value| {
        ["title", "total_quantity", "issue_ends_at"].iter().all(|k| body[*k] == coupon[*k])
    };
    world.wait_on_every_instance(&format!("/v1/coupons/{COUPON}"), same).await;
    made
}

async fn ask(api: &ApiClient, user: &str) -> ApiResponse {
    api.post(&format!("/v1/coupons/{COUPON}/issues")).user(user).send().await
}

async fn mine(api: &ApiClient, user: &str) -> Vec<Value> {
    let list = api.get("/v1/coupons/issues/mine").user(user).send().await.expect(200);
    list["items"].as_array().unwrap().clone()
}

/// The coupon in Redis: users and the first sixteen bytes of their issues.
async fn issued_in_redis(world: &TestWorld) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let partition = world.stores.partition_of(COUPON);
    let key = world.stores.key(partition, &format!("c:{COUPON}:issues"));
    let hash = world.stores.redis().await.hash(&key).await;
    hash.into_iter().map(|(user, issue)| (user, issue[..16].to_vec())).collect()
}

async fn issued_in_mysql(world: &TestWorld) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let rows: Vec<(uuid::Uuid, uuid::Uuid)> =
        sqlx::query_as("SELECT user_id, id FROM coupon_issues")
            .fetch_all(&world.stores.mysql)
            .await
            .unwrap();
    rows.into_iter().map(|(user, id)| (user.as_bytes().to_vec(), id.as_bytes().to_vec())).collect()
}

/// 5,000 requests of 3,000 users for 500 coupons, at most 256 at once.
async fn concurrent_users_get_exactly_the_quota(world: TestWorld) {
    put(&world, &open(json!(500))).await;
    let users: Vec<String> = (0..3_000).map(|_| new_user()).collect();
    let asks: Vec<_> =
        (0..5_000).map(|n| ask(&world.api, &users[(n * 7 + n / 3_000) % 3_000])).collect();
    let mut issues = BTreeMap::<String, BTreeSet<String>>::new();
    let (mut made, mut repeated) = (0, 0);
    let mut answers = futures::stream::iter(asks).buffer_unordered(256);
    while let Some(answer) = answers.next().await {
        match answer.status {
            201 | 200 => {
                made += i32::from(answer.status == 201);
                repeated += i32::from(answer.status == 200);
                let text = |name: &str| answer.body[name].as_str().unwrap().to_owned();
                issues.entry(text("user_id")).or_default().insert(text("id"));
            }
            _ => drop(answer.problem(409, "sold_out")),
        }
    }
    drop(answers);
    assert_eq!((made, issues.len()), (500, 500));
    assert!(issues.values().all(|ids| ids.len() == 1), "one issue each");

    world.stores.wait_until_idle().await;
    let (redis, mysql) = (issued_in_redis(&world).await, issued_in_mysql(&world).await);
    let answered: BTreeMap<Vec<u8>, Vec<u8>> = issues
        .iter()
        .map(|(user, ids)| {
            let bytes = |text: &String| text.parse::<uuid::Uuid>().unwrap().as_bytes().to_vec();
            (bytes(user), bytes(ids.first().unwrap()))
        })
        .collect();
    assert_eq!(redis, answered);
    assert_eq!(mysql, answered);
    // All users again, on every instance: holders get their issue, the others are refused.
    for at in 0..world.api.instances() {
        let api = world.api.for_instance(at);
        let again =
            futures::stream::iter(users.iter().map(|user| ask(&api, user))).buffer_unordered(128);
        for (user, answer) in users.iter().zip(again.collect::<Vec<_>>().await) {
            let _ = user;
            match answer.status {
                200 => {
                    let id = answer.body["id"].as_str().unwrap();
                    assert!(issues[answer.body["user_id"].as_str().unwrap()].contains(id));
                    repeated += 1;
                }
                _ => drop(answer.problem(409, "sold_out")),
            }
        }
    }
    assert!(repeated >= 500 * i32::try_from(world.api.instances()).unwrap());
    let coupon = world.api.get(&format!("/v1/coupons/{COUPON}")).send().await;
    assert_eq!(coupon.header("cache-control"), Some("public, max-age=1"));
    let coupon = coupon.expect(200);
    assert_eq!((&coupon["status"], &coupon["issued_quantity"]), (&json!("sold_out"), &json!(500)));
    assert_eq!(
        (&coupon["id"], &coupon["type"]),
        (&json!(COUPON), &json!("first_come_first_served"))
    );
}

async fn user_keeps_their_one_issue(world: TestWorld) {
    put(&world, &open(json!(1))).await;
    let winner = new_user();
    let twins = join_all((0..100).map(|_| ask(&world.api, &winner))).await;
    assert_eq!(twins.iter().filter(|twin| twin.status == 201).count(), 1);
    let issue = twins.iter().find(|twin| twin.status == 201).unwrap().expect(201);
    assert_eq!((&issue["coupon_id"], &issue["used_at"]), (&json!(COUPON), &Value::Null));
    assert!(twins.iter().all(|twin| twin.body == issue), "every repeat gets the same issue");

    // Sold out. On an instance that has issued none, before and after it has learnt the holders.
    let other = world.api.for_instance(world.api.instances() - 1);
    for _ in 0..5 {
        ask(&other, &new_user()).await.problem(409, "sold_out");
        assert_eq!(ask(&other, &winner).await.expect(200), issue);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(mine(&other, &winner).await, std::slice::from_ref(&issue));
    world.stores.wait_until_idle().await;
    assert_eq!(mine(&world.api, &winner).await, std::slice::from_ref(&issue));

    // After the end.
    let mut ended = open(json!(1));
    ended["issue_ends_at"] = json!(text(Utc::now()));
    put(&world, &ended).await;
    assert_eq!(ask(&world.api, &winner).await.expect(200), issue);
    ask(&world.api, &new_user()).await.problem(403, "ended");
}

/// The clock of Redis.
async fn redis_now(world: &TestWorld) -> DateTime<Utc> {
    let time = world.stores.redis().await.ask(&["TIME"]).await.list();
    let [seconds, micros] = time.try_into().unwrap();
    DateTime::from_timestamp_millis(seconds.int() * 1_000 + micros.int() / 1_000).unwrap()
}

/// Sends requests continuously while the window opens and closes. The times of the issues show
/// when.
async fn window_follows_the_redis_clock(world: TestWorld) {
    let now = redis_now(&world).await;
    let mut coupon = open(Value::Null);
    let (starts, ends) = (now + TimeDelta::milliseconds(900), now + TimeDelta::milliseconds(1_800));
    coupon["issue_starts_at"] = json!(text(starts));
    coupon["issue_ends_at"] = json!(text(ends));
    put(&world, &coupon).await;
    let (mut early, mut issued, mut late) = (0, Vec::new(), 0);
    while redis_now(&world).await < ends + TimeDelta::milliseconds(200) {
        let before = redis_now(&world).await;
        let answer = ask(&world.api, &new_user()).await;
        let after = redis_now(&world).await;
        match answer.status {
            201 => {
                let at: DateTime<Utc> = answer.body["issued_at"].as_str().unwrap().parse().unwrap();
                issued.push(at);
                assert!(after >= starts && before < ends, "issued outside of the window");
            }
            _ if answer.body["code"] == "not_started" => {
                answer.problem(403, "not_started");
                assert!(before < starts, "refused after the start");
                early += 1;
            }
            _ => {
                answer.problem(403, "ended");
                assert!(after >= ends, "refused before the end");
                late += 1;
            }
        }
    }
    assert!(early > 0 && late > 0, "both edges were reached");
    let floor = |time: DateTime<Utc>| time.timestamp_millis();
    assert!(
        issued.iter().all(|at| floor(*at) >= floor(starts) && floor(*at) < floor(ends)),
        "{issued:?}"
    );
    let status = world.api.get(&format!("/v1/coupons/{COUPON}")).send().await.expect(200);
    assert_eq!(
        (&status["status"], status["issued_quantity"].as_u64()),
        (&json!("ended"), Some(issued.len() as u64))
    );
}

async fn quota_is_never_below_the_issued_count(world: TestWorld) {
    put(&world, &open(json!(10))).await;
    for _ in 0..5 {
        ask(&world.api, &new_user()).await.expect(201);
    }
    let path = format!("/admin/coupons/{COUPON}");
    let refusal = world.api.put(&path, &open(json!(4))).await.problem(409, "in_use");
    assert_eq!(refusal["issued_quantity"], 5);
    // The refused change has changed nothing.
    ask(&world.api, &new_user()).await.expect(201);
    let lowered = put(&world, &open(json!(6))).await;
    assert_eq!((&lowered["status"], &lowered["issued_quantity"]), (&json!("sold_out"), &json!(6)));
    ask(&world.api, &new_user()).await.problem(409, "sold_out");
    assert_eq!(issued_in_redis(&world).await.len(), 6);
}

/// The quota of a sold-out coupon is raised while users send requests everywhere: a user with an
/// issue never gets "sold out".
async fn raised_quota_applies_on_every_instance(world: TestWorld) {
    put(&world, &open(json!(3))).await;
    for _ in 0..3 {
        ask(&world.api, &new_user()).await.expect(201);
    }
    let users: Vec<String> = (0..60).map(|_| new_user()).collect();
    for round in 0..3 {
        // Long enough for every instance to answer from memory.
        let until = Instant::now() + Duration::from_millis(400);
        while Instant::now() < until {
            for at in 0..world.api.instances() {
                ask(&world.api.for_instance(at), &new_user()).await.problem(409, "sold_out");
            }
        }
        let asks = users.iter().enumerate().map(async |(n, user)| {
            let mut won: Option<Value> = None;
            for turn in 0..60 {
                let api = world.api.for_instance((n + turn) % world.api.instances());
                let answer = ask(&api, user).await;
                match (&won, answer.status) {
                    (None, 201 | 200) => won = Some(answer.body["id"].clone()),
                    (None, _) => drop(answer.problem(409, "sold_out")),
                    (Some(id), _) => {
                        assert_eq!(answer.expect(200)["id"], *id, "a user keeps the issue")
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            won
        });
        let total = 3 + 20 * (round + 1);
        let raise = async {
            world
                .api
                .put(&format!("/admin/coupons/{COUPON}"), &open(json!(total)))
                .await
                .expect(200);
            // The raised quota is open on each instance when the call returns.
        };
        let (won, ()) = tokio::join!(join_all(asks), raise);
        assert_eq!(won.iter().flatten().count(), total - 3, "every added coupon was issued");
        assert_eq!(issued_in_redis(&world).await.len(), total);
    }
    put(&world, &open(json!(64))).await;
    ask(&world.api, &new_user()).await.expect(201);
    ask(&world.api, &new_user()).await.problem(409, "sold_out");
    world.stores.wait_until_idle().await;
    assert_eq!(issued_in_mysql(&world).await, issued_in_redis(&world).await);
}

async fn coupon_ended_early_is_refused(world: TestWorld) {
    put(&world, &open(json!(10))).await;
    ask(&world.api, &new_user()).await.expect(201);
    let mut ended = open(json!(10));
    ended["issue_ends_at"] = json!(text(redis_now(&world).await));
    let answer = put(&world, &ended).await;
    assert_eq!(answer["status"], "ended");
    for at in 0..world.api.instances() {
        ask(&world.api.for_instance(at), &new_user()).await.problem(403, "ended");
    }
    // Opened again.
    put(&world, &open(json!(10))).await;
    ask(&world.api, &new_user()).await.expect(201);

    // Ended while it is sold out and every instance answers from memory: all instances know it when
    // the change is confirmed.
    let path = format!("/admin/coupons/{COUPON}");
    world.api.put(&path, &open(json!(2))).await.expect(200);
    let until = Instant::now() + Duration::from_millis(400);
    while Instant::now() < until {
        for at in 0..world.api.instances() {
            ask(&world.api.for_instance(at), &new_user()).await.problem(409, "sold_out");
        }
    }
    ended["total_quantity"] = json!(2);
    world.api.put(&path, &ended).await.expect(200);
    for at in 0..world.api.instances() {
        ask(&world.api.for_instance(at), &new_user()).await.problem(403, "ended");
    }
}

async fn coupon_without_quota_is_unlimited(world: TestWorld) {
    let made = put(&world, &open(Value::Null)).await;
    assert_eq!(
        (&made["definition"]["total_quantity"], &made["status"]),
        (&Value::Null, &json!("open"))
    );
    let asks = join_all((0..300).map(async |_| ask(&world.api, &new_user()).await.status)).await;
    assert!(asks.iter().all(|status| *status == 201));
    let limited = put(&world, &open(json!(301))).await;
    assert_eq!(limited["issued_quantity"], 300);
    ask(&world.api, &new_user()).await.expect(201);
    ask(&world.api, &new_user()).await.problem(409, "sold_out");
}

async fn lists_are_paged_newest_first(world: TestWorld) {
    let user = new_user();
    for n in 0..7 {
        let path = format!("/admin/coupons/list-{n}");
        world.api.put(&path, &open(json!(1))).await.expect(200);
        world.wait_on_every_instance(&format!("/v1/coupons/list-{n}"), |_| true).await;
        let path = format!("/v1/coupons/list-{n}/issues");
        world.api.post(&path).user(&user).send().await.expect(201);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/coupons/issues/mine?limit=3".to_owned();
    loop {
        let page = world.api.get(&path).user(&user).send().await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3);
        seen.extend(items.iter().map(|issue| issue["coupon_id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/coupons/issues/mine?limit=3&before={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (0..7).rev().map(|n| format!("list-{n}")).collect();
    assert_eq!(seen, expected);

    // The operator's list has all users of one coupon.
    put(&world, &open(json!(12))).await;
    for _ in 0..12 {
        ask(&world.api, &new_user()).await.expect(201);
    }
    let admin = |query: &str| {
        let path = format!("/admin/coupons/{COUPON}/issues{query}");
        let api = &world.api;
        async move { api.admin_call(Method::GET, &path).send().await }
    };
    let first = admin("?limit=5").await.expect(200);
    assert_eq!(first["items"].as_array().unwrap().len(), 5);
    let next = first["next"].as_str().unwrap();
    let rest = admin(&format!("?before={next}")).await.expect(200);
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (7, &Value::Null));
    let all: BTreeSet<_> = [&first, &rest]
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap())
        .map(|issue| issue["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(all.len(), 12);
    for bad in ["?limit=0", "?limit=501", "?limit=x", "?before=x", "?colour=red"] {
        admin(bad).await.problem(422, "invalid_request");
    }
    let none = world.api.admin_call(Method::GET, "/admin/coupons/none/issues").send().await;
    none.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_fields_are_named() {
    let world = TestWorld::start(1).await;
    for (field, values) in [
        ("title", vec![json!(""), json!("x".repeat(256)), json!("a\nb"), json!(5), Value::Null]),
        (
            "total_quantity",
            vec![json!(0), json!(-1), json!(1.5), json!("5"), json!(1_000_000_001_u64)],
        ),
        (
            "discount_amount",
            vec![
                json!(0),
                json!(-5),
                json!(1.5),
                json!("5"),
                json!(9_007_199_254_740_992_u64),
                Value::Null,
            ],
        ),
        (
            "min_available_amount",
            vec![json!(-1), json!(1.5), json!("5"), json!(9_007_199_254_740_992_u64), Value::Null],
        ),
        (
            "issue_starts_at",
            vec![json!("soon"), json!(5), Value::Null, json!("1969-12-31T23:59:59Z")],
        ),
        (
            "issue_ends_at",
            vec![
                json!("soon"),
                json!(5),
                Value::Null,
                json!("2001-01-01T00:00:00Z"),
                json!("+10000-01-01T00:00:00Z"),
            ],
        ),
        ("type", vec![json!("lottery"), json!(5)]),
        ("id", vec![json!("other"), json!("a b"), json!(5)]),
        ("colour", vec![json!("red")]),
    ] {
        for value in values {
            let mut coupon = open(json!(5));
            coupon[field] = value.clone();
            let refusal = world.api.put(&format!("/admin/coupons/{COUPON}"), &coupon).await;
            let refusal = refusal.problem(422, "invalid_request");
            assert_eq!(refusal["errors"][0]["field"], field, "{field}: {value}: {refusal}");
        }
    }
    for left_out in ["title", "discount_amount", "issue_starts_at", "issue_ends_at"] {
        let mut coupon = open(json!(5));
        coupon.as_object_mut().unwrap().remove(left_out);
        let refusal = world.api.put(&format!("/admin/coupons/{COUPON}"), &coupon).await;
        assert_eq!(refusal.problem(422, "invalid_request")["errors"][0]["field"], left_out);
    }
    world.api.put("/admin/coupons/a%20b", &open(json!(5))).await.problem(422, "invalid_request");
    let user = new_user();
    for path in ["/v1/coupons/none", "/v1/coupons/a%20b", "/v1/coupons/%7Bp1%7D"] {
        world.api.get(path).send().await.problem(404, "not_found");
        world
            .api
            .post(&format!("{path}/issues"))
            .user(&user)
            .send()
            .await
            .problem(404, "not_found");
    }
    put(&world, &open(json!(5))).await;
    let path = format!("/v1/coupons/{COUPON}/issues");
    world.api.post(&path).send().await.problem(401, "unauthenticated");
    world.api.get("/v1/coupons/issues/mine").send().await.problem(401, "unauthenticated");
    world
        .api
        .get("/v1/coupons/issues/mine?limit=0")
        .user(&user)
        .send()
        .await
        .problem(422, "invalid_request");
    assert_eq!(issued_in_redis(&world).await.len(), 0);
}

/// Settings missing in Redis are published again on demand, once, and issue no more than before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_settings_are_published_again() {
    let world = TestWorld::start(2).await;
    put(&world, &open(json!(5))).await;
    ask(&world.api, &new_user()).await.expect(201);
    let key = world.stores.key(world.stores.partition_of(COUPON), &format!("c:{COUPON}:settings"));
    world.stores.redis().await.ask(&["DEL", &key]).await;
    let asks = join_all((0..50).map(async |_| ask(&world.api, &new_user()).await.status)).await;
    assert_eq!(asks.iter().filter(|status| **status == 201).count(), 4);
    assert_eq!(asks.iter().filter(|status| **status == 409).count(), 46);
}

/// A change whose instance died while publishing is repaired by the next instance that starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_publish_is_repaired() {
    let world = TestWorld::start(1).await;
    put(&world, &open(json!(5))).await;
    ask(&world.api, &new_user()).await.expect(201);
    let stores = world.stop().await;
    let key = stores.key(stores.partition_of(COUPON), &format!("c:{COUPON}:settings"));
    stores.redis().await.ask(&["HSET", &key, "version", "0", "total", "1"]).await;
    let world = TestWorld::on(stores, 1).await;
    eventually("the settings are those of MySQL", || async {
        (ask(&world.api, &new_user()).await.status == 201).then_some(())
    })
    .await;
}
