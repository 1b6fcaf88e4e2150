//! Ids of users are opaque strings: in identities, tokens, answers and lists, on every instance and
//! after a loss of Redis.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};

use super::api_with;
use crate::recovery::restore::lose_redis;
use crate::recovery::restore::open_sale;
use crate::support::api::TestUser;
use crate::support::{ApiClient, CONCERT, SCHEDULE, TestStores, TestWorld, eventually, new_key};

const COUPON: &str = "spring";
const OPAQUE: [&str; 6] = [
    "42",
    "auth0|5f7c8ec7c33c6c004bbafe82",
    "ann.lee+tickets@example.org",
    "{00000000-0000-4000-8000-000000000001}",
    "00000000-0000-8000-8000-00000000000A",
    "%2F:/?#[]@!$&'()*,;=\"<>\\^`{|}~",
];

/// The string of a user in lists and tokens.
fn recorded(user: &str) -> String {
    if user.len() == 36 { user.to_lowercase() } else { user.to_owned() }
}

fn encoded(user: &str) -> String {
    user.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn active(api: &ApiClient, user: &str) -> TestUser {
    let ticket = api.join(CONCERT, user).await.expect(201);
    assert_eq!(ticket["user_id"], user);
    let token = ticket["token"].as_str().unwrap().to_owned();
    let again = api.join(CONCERT, user).await.expect(200);
    assert_eq!((&again["user_id"], &again["token"]), (&json!(user), &json!(token)));
    let holder = TestUser { user: user.to_owned(), token };
    let ticket = api.wait_until_active(CONCERT, &holder).await;
    assert_eq!(ticket["user_id"], recorded(user));
    let pass = ticket["pass"].as_str().unwrap().split('.').nth(1).unwrap();
    let pass: Value = serde_json::from_slice(&BASE64.decode(pass).unwrap()).unwrap();
    assert_eq!(pass["sub"], recorded(user));
    holder
}

/// Uses every route that names its user.
async fn buy(api: &ApiClient, user: &str, seat: u32) {
    let holder = active(api, user).await;
    for gate in ["check", "gate"] {
        let gate = format!("/v1/queues/{CONCERT}/{gate}");
        let passed = api.get(&gate).token(&holder.token).send().await;
        assert_eq!(passed.header("usher-user"), Some(recorded(user).as_str()));
    }
    api.charge(user, 5_000).await;
    let wallet = api.get("/v1/wallet").user(user).send().await.expect(200);
    assert_eq!(wallet, json!({"user_id": user, "balance": 5_000, "currency": "KRW"}));
    let issues = format!("/v1/coupons/{COUPON}/issues");
    let issue = api.post(&issues).user(user).send().await.expect(201);
    assert_eq!(issue["user_id"], user);
    let mine = api.get("/v1/coupons/issues/mine").user(user).send().await.expect(200);
    assert_eq!(mine["items"][0]["user_id"], user);
    let held = api.hold_seats(&holder.token, SCHEDULE, &[seat]).await;
    api.pay(&holder.token, &held, &new_key()).await.expect(201);
    for path in ["/v1/reservations/mine", &format!("/v1/reservations/{held}")] {
        api.get(path).user(user).send().await.expect(200);
    }
    let claim = api.post("/v1/rewards/hello/claims").user(user).send().await.expect(201);
    assert_eq!(claim["user_id"], user);
    let facts = format!("/admin/users/{}/facts", encoded(user));
    let facts = api.put(&facts, &json!({"vip": 1})).await.expect(200);
    assert_eq!(facts["user_id"], user);
}

/// A string within a JSON string.
fn json_text(text: &str) -> String {
    let quoted = json!(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

async fn listed(api: &ApiClient, path: &str) -> Vec<String> {
    let list = api.admin_call(Method::GET, path).send().await.expect(200);
    let users = list["items"].as_array().unwrap().iter();
    let mut users: Vec<_> =
        users.map(|item| item["user_id"].as_str().unwrap().to_owned()).collect();
    users.sort();
    users
}

/// The users in every list of admins.
async fn assert_listed(api: &ApiClient, users: &[String]) {
    for path in [
        &format!("/admin/concerts/{CONCERT}/reservations"),
        &format!("/admin/coupons/{COUPON}/issues"),
        "/admin/rewards/hello/claims",
    ] {
        assert_eq!(listed(api, path).await, users, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_string_is_a_user_everywhere() {
    let world = TestWorld::start(2).await;
    open_sale(&world, 20).await;
    let longest = format!("x{}", "y".repeat(127));
    let mut users: Vec<&str> = OPAQUE.to_vec();
    users.push(&longest);
    for (user, seat) in users.iter().zip(1..) {
        buy(&world.api, user, seat).await;
    }
    let mut expected: Vec<_> = users.iter().map(|user| recorded(user)).collect();
    expected.sort();
    // The instance that lists is not always the one that recorded.
    for _ in 0..2 {
        assert_listed(&world.api, &expected).await;
    }
    let mut log = world
        .api
        .admin_call(Method::GET, "/admin/actions?limit=7")
        .send()
        .await
        .expect(200)["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|action| action["object"].as_str().unwrap().to_owned())
        .collect::<Vec<_>>();
    log.sort();
    let mut named: Vec<_> = users.iter().map(|user| (*user).to_owned()).collect();
    named.sort();
    assert_eq!(log, named);
    sqlx::query("UPDATE user_facts SET facts = '{}'").execute(&world.stores.mysql).await.unwrap();
    let report = world.api.admin_call(Method::POST, "/admin/audit").send().await.expect(200);
    for user in &expected {
        assert!(
            report.to_string().contains(&format!("the facts of {}: ", json_text(user))),
            "{report}"
        );
    }
    // The key of a user is not an id of that user.
    let key = usher::ids::UserName::from(users[0].parse::<usher::ids::UserId>().unwrap());
    assert_eq!(world.api.balance(&key.to_string()).await, 0);
    assert_ne!(world.api.balance(users[0]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_sees_and_removes_users_by_their_ids() {
    let world = TestWorld::start(2).await;
    world.put_queue("side", json!({"max_active": 1})).await;
    let api = &world.api;
    for user in OPAQUE {
        api.join("side", user).await.expect(201);
    }
    let delete = |path: &str| api.admin_call(Method::DELETE, &format!("/admin/queues/side{path}"));
    let expected = OPAQUE.map(|user| json!({"kind": "user", "id": recorded(user)}));
    eventually("the ids are recorded", async || {
        let refused = delete("").send().await.problem(409, "in_use");
        (refused["in_use"] == json!(expected)).then_some(())
    })
    .await;
    for user in OPAQUE {
        delete(&format!("/users/{}", encoded(user))).send().await.expect_text(204);
    }
    delete("").send().await.expect_text(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uuid_is_the_same_user_in_any_letter_case() {
    let world = TestWorld::start(2).await;
    open_sale(&world, 20).await;
    let api = &world.api;
    let (upper, lower) =
        ("0B5F4A1E-26A2-4E6C-9D6C-5A8F7D1C2B3A", "0b5f4a1e-26a2-4e6c-9d6c-5a8f7d1c2b3a");
    let token = active(api, upper).await.token;
    let ticket = api.join(CONCERT, lower).await.expect(200);
    assert_eq!((&ticket["user_id"], &ticket["token"]), (&json!(lower), &json!(token)));
    api.get(&format!("/v1/queues/{CONCERT}/tokens/me"))
        .token(&token)
        .user(upper)
        .send()
        .await
        .expect(200);
    api.charge(lower, 500).await;
    let wallet = api.get("/v1/wallet").user(upper).send().await.expect(200);
    assert_eq!(wallet, json!({"user_id": upper, "balance": 500, "currency": "KRW"}));
    // Other strings are compared as they are.
    api.charge("Ann", 1).await;
    assert_eq!(api.balance("ann").await, 0);
    assert_eq!(world.stores.count("SELECT COUNT(*) FROM users WHERE name <> 'Ann'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strings_survive_a_loss_of_redis() {
    let stores = TestStores::with_own_redis().await;
    let world = TestWorld::on(stores, 2).await;
    open_sale(&world, 20).await;
    let api = &world.api;
    let holder = active(api, "auth0|1").await;
    api.charge("auth0|1", 5_000).await;
    let held = api.hold_seats(&holder.token, SCHEDULE, &[1]).await;
    api.pay(&holder.token, &held, &new_key()).await.expect(201);
    eventually("MySQL has the payment and the user", async || {
        let written = "SELECT (SELECT COUNT(*) FROM payments) * (SELECT COUNT(*) FROM users)";
        (world.stores.count(written).await == 1).then_some(())
    })
    .await;
    lose_redis(&world).await;
    let wallet = api.get("/v1/wallet").user("auth0|1").send().await.expect(200);
    assert_eq!(wallet["balance"], 4_000);
    let path = format!("/admin/concerts/{CONCERT}/reservations");
    assert_eq!(listed(api, &path).await, ["auth0|1"]);
    // An instance does not rely on what it recorded in the Redis that is lost.
    sqlx::query("DELETE FROM users").execute(&world.stores.mysql).await.unwrap();
    for _ in 0..2 {
        api.charge("auth0|1", 1).await;
    }
    eventually("the user is recorded again", async || {
        (world.stores.count("SELECT COUNT(*) FROM users").await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_waits_and_passes_the_gate_but_owns_nothing() {
    let world = TestWorld::start(1).await;
    open_sale(&world, 20).await;
    let (_instance, api) = api_with(&world.stores, |args| {
        args.secrets.auth = Some("guest".into());
    })
    .await;
    let joined = api.post(&format!("/v1/queues/{CONCERT}/tokens")).send().await.expect(201);
    let guest = TestUser {
        user: joined["user_id"].as_str().unwrap().to_owned(),
        token: joined["token"].as_str().unwrap().to_owned(),
    };
    api.wait_until_active(CONCERT, &guest).await;
    let gate = api.get(&format!("/v1/queues/{CONCERT}/gate")).token(&guest.token).send().await;
    assert_eq!((gate.status, gate.header("usher-user")), (204, Some(guest.user.as_str())));
    // Two guests are two users.
    let other = api.post(&format!("/v1/queues/{CONCERT}/tokens")).send().await.expect(201);
    assert_ne!(other["user_id"], guest.user.as_str());
    // The waiting page keeps its guest in the cookie.
    let page = api.post(&format!("/waiting/{CONCERT}/place")).send().await;
    let cookie = page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let kept = api.post(&format!("/waiting/{CONCERT}/place")).header("cookie", &cookie);
    assert_eq!(kept.send().await.expect(200)["user_id"], page.expect(200)["user_id"]);

    let seats = json!({"schedule_id": SCHEDULE, "seats": [1]});
    let best = json!({"schedule_id": SCHEDULE, "quantity": 1});
    let payment = json!({"reservation_id": "00000000-0000-8000-8000-000000000001"});
    let unknown = "/v1/reservations/00000000-0000-8000-8000-000000000001";
    let with_body = |path: &str, body: &Value| api.post(path).key(&new_key()).json(body);
    for call in [
        with_body("/v1/reservations", &seats),
        with_body("/v1/reservations/best", &best),
        with_body("/v1/payments", &payment),
        with_body("/v1/wallet/charges", &json!({"amount": 1})),
        with_body("/v1/wallet/uses", &json!({"amount": 1})),
        with_body(&format!("{unknown}/cancel"), &json!({})),
        api.get(unknown),
        api.delete(unknown),
        api.get("/v1/reservations/mine"),
        api.get("/v1/payments/00000000-0000-8000-8000-000000000001"),
        api.get("/v1/wallet"),
        api.get("/v1/wallet/entries"),
        api.post(&format!("/v1/coupons/{COUPON}/issues")),
        api.get("/v1/coupons/issues/mine"),
        api.post("/v1/rewards/hello/claims"),
        api.get("/v1/rewards/hello/claims/mine"),
    ] {
        call.token(&guest.token).send().await.problem(401, "unauthenticated");
    }
    // A guest cannot choose an id.
    api.get("/v1/wallet").user(&guest.user).send().await.problem(401, "unauthenticated");
    api.join(CONCERT, &guest.user).await.problem(401, "unauthenticated");
    assert_eq!(world.stores.count("SELECT COUNT(*) FROM reservations").await, 0);
    // An instance that accepts users does not let a guest's token own anything either.
    let held = world.api.hold(&guest.token, SCHEDULE, &[1]).await;
    held.problem(401, "unauthenticated");
    // Without the mode, an anonymous join is refused as before.
    world
        .api
        .post(&format!("/v1/queues/{CONCERT}/tokens"))
        .send()
        .await
        .problem(401, "unauthenticated");
}
