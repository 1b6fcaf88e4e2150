//! What operators see: users, totals, dead letters, and lists as CSV.

use reqwest::Method;
use serde_json::{Value, json};

use crate::coupons::payments::coupon;
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestWorld, eventually, new_key, new_user, on_one_and_two,
};

on_one_and_two!(
    everything_about_a_user_is_shown,
    users_are_found_by_the_beginning_of_their_id,
    totals_are_equal_on_every_instance,
    dead_letter_is_retried,
    lists_are_available_as_csv,
);

async fn get(api: &ApiClient, path: &str) -> Value {
    api.admin_call(Method::GET, path).send().await.expect(200)
}

fn reward() -> Value {
    json!({"title": "Hello", "starts_at": "2020-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z", "reward": {"kind": "points", "amount": 5}})
}

async fn everything_about_a_user_is_shown(world: TestWorld) {
    world.put_show(50, 1_000).await;
    let api = &world.api;
    api.put("/admin/coupons/spring", &coupon(100, 100)).await.expect(200);
    api.put("/admin/rewards/hello", &reward()).await.expect(200);
    let user = "auth0|5f7c";
    let none = get(api, "/admin/users/auth0%7C5f7c").await;
    let empty = json!({"user_id": user, "balance": 0, "currency": "KRW", "facts": {},
        "places": [], "reservations": [], "payments": [], "coupon_issues": [], "claims": []});
    assert_eq!(none, empty);

    api.put("/admin/users/auth0%7C5f7c/facts", &json!({"vip": 1})).await.expect(200);
    api.charge(user, 5_000).await;
    let ticket = eventually("the user is admitted", || async {
        let ticket = api.join(CONCERT, user).await;
        (ticket.body["status"] == "active").then_some(ticket.body)
    })
    .await;
    let token = ticket["token"].as_str().unwrap();
    let issue = api.post("/v1/coupons/spring/issues").user(user).send().await.expect(201);
    let claim = api.post("/v1/rewards/hello/claims").user(user).send().await.expect(201);
    let held = api.hold_seats(token, SCHEDULE, &[1]).await;
    let shown = get(api, "/admin/users/auth0%7C5f7c").await;
    assert_eq!((&shown["user_id"], &shown["balance"]), (&json!(user), &json!(5_005)));
    assert_eq!(shown["facts"], json!({"vip": 1}));
    let place = &shown["places"][0];
    assert_eq!((&place["queue_id"], &place["status"]), (&json!(CONCERT), &json!("active")));
    assert_eq!((&place["score"], &place["position"]), (&ticket["score"], &Value::Null));
    let reservation = &shown["reservations"][0];
    assert_eq!((&reservation["id"], &reservation["status"]), (&json!(held), &json!("held")));
    assert_eq!(shown["coupon_issues"][0]["id"], issue["id"]);
    assert_eq!(shown["claims"][0]["id"], claim["id"]);
    let paid = api.pay(token, &held, &new_key()).await.expect(201);
    let shown = get(api, "/admin/users/auth0%7C5f7c").await;
    assert_eq!(shown["payments"][0], paid);
    assert_eq!(shown["balance"], 4_005);

    world.put_queue("narrow", json!({"max_active": 1})).await;
    api.active_user("narrow").await;
    let waiting = api.join_new_user("narrow").await;
    let shown = eventually("the place is counted", || async {
        let shown = get(api, &format!("/admin/users/{}", waiting.user)).await;
        shown["places"][0]["position"].is_number().then_some(shown)
    })
    .await;
    let place = &shown["places"][0];
    assert_eq!((&place["status"], &place["position"]), (&json!("waiting"), &json!(1)));
}

async fn users_are_found_by_the_beginning_of_their_id(world: TestWorld) {
    let api = &world.api;
    let mut named: Vec<String> = (0..5).map(|n| format!("auth0|{n}")).collect();
    let mut uuids: Vec<String> = (0..6).map(|_| new_user()).collect();
    uuids.push("0a1b2c3d-0000-4000-8000-000000000001".to_owned());
    for user in named.iter().chain(&uuids).chain([&"Auth0|x".to_owned()]) {
        api.charge(user, 10).await;
    }
    world.stores.wait_until_idle().await;
    let pages = async |query: &str| {
        let (mut found, mut before) = (Vec::new(), String::new());
        loop {
            let page = get(api, &format!("/admin/users?limit=2{query}{before}")).await;
            for item in page["items"].as_array().unwrap() {
                found.push(item["user_id"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else { return found };
            before = format!("&before={}", next.replace('|', "%7C"));
        }
    };
    assert_eq!(pages("&q=auth0").await, named);
    assert_eq!(pages("&q=auth0%7C3").await, ["auth0|3"]);
    assert_eq!(pages("&q=Auth0").await, ["Auth0|x"]);
    assert_eq!(pages("&q=0A1B2C3D-").await, ["0a1b2c3d-0000-4000-8000-000000000001"]);
    assert_eq!(pages("&q=none-such").await, [""; 0]);
    uuids.sort_unstable();
    named.insert(0, "Auth0|x".to_owned());
    assert_eq!(pages("").await, [named, uuids].concat());
}

async fn totals_are_equal_on_every_instance(world: TestWorld) {
    world.put_show(50, 1_000).await;
    world.put_queue("narrow", json!({"max_active": 1})).await;
    let api = &world.api;
    api.put("/admin/coupons/spring", &coupon(100, 100)).await.expect(200);
    api.put("/admin/rewards/hello", &reward()).await.expect(200);
    for seat in 1..=3 {
        let user = api.active_user(CONCERT).await;
        api.charge(&user.user, 1_000).await;
        let held = api.hold_seats(&user.token, SCHEDULE, &[seat]).await;
        api.pay(&user.token, &held, &new_key()).await.expect(201);
    }
    let holder = api.active_user(CONCERT).await;
    api.hold_seats(&holder.token, SCHEDULE, &[10, 11]).await;
    for _ in 0..4 {
        let user = new_user();
        api.post("/v1/coupons/spring/issues").user(&user).send().await.expect(201);
        api.post("/v1/rewards/hello/claims").user(&user).send().await.expect(201);
        api.post("/v1/rewards/hello/claims")
            .user(&user)
            .send()
            .await
            .problem(409, "already_claimed");
    }
    api.active_user("narrow").await;
    for _ in 0..2 {
        api.join_new_user("narrow").await;
    }
    world.stores.wait_until_idle().await;
    let expected = json!({"seats_sold": 3, "holds": 1, "payments_confirmed": 3,
        "payments_pending": 0, "coupons_issued": 4, "rewards_claimed": 4, "waiting": 2,
        "active": 2, "outbox_backlog": 0});
    for at in 0..api.instances() {
        assert_eq!(get(&api.for_instance(at), "/admin/stats").await, expected);
    }
}

async fn dead_letter_is_retried(world: TestWorld) {
    world.put_show(20, 1_000).await;
    let (api, stores) = (&world.api, &world.stores);
    // Seat 5 has an owner in MySQL that Redis does not know.
    let stray = "INSERT INTO reservation_seats (schedule_id, seat_number, reservation_id) VALUES \
         ('night', 5, REPEAT('x', 16))";
    sqlx::query(stray).execute(&stores.mysql).await.unwrap();
    let user = api.active_user(CONCERT).await;
    api.charge(&user.user, 1_000).await;
    let held = api.hold_seats(&user.token, SCHEDULE, &[5]).await;
    api.pay(&user.token, &held, &new_key()).await.expect(201);
    let letter = eventually("the event is quarantined", || async {
        get(api, "/admin/dead-letters").await["items"].get(0).cloned()
    })
    .await;
    assert!(letter["cause"].as_str().unwrap().contains("Duplicate"), "{letter}");
    assert!(letter["bytes"].as_u64().unwrap() > 0);
    let path = format!("/admin/dead-letters/{}/retry", letter["id"].as_str().unwrap());
    let retry = || api.admin_call(Method::POST, &path).send();
    let refused = retry().await.expect(200);
    assert_eq!((&refused["status"], &refused["cause"]), (&json!("refused"), &letter["cause"]));
    let repair = "DELETE FROM reservation_seats WHERE reservation_id = REPEAT('x', 16)";
    sqlx::query(repair).execute(&stores.mysql).await.unwrap();
    let applied = retry().await.expect(200);
    assert_eq!((&applied["status"], &applied["cause"]), (&json!("applied"), &Value::Null));
    retry().await.problem(404, "not_found");
    assert_eq!(get(api, "/admin/dead-letters").await, json!({"items": [], "next": null}));
    stores.audit().await;
}

async fn lists_are_available_as_csv(world: TestWorld) {
    world.put_show(50, 1_000).await;
    let api = &world.api;
    let csv = async |path: &str| {
        let call = api.admin_call(Method::GET, path).header("accept", "text/csv");
        let answer = call.send().await;
        let text = answer.expect_text(200);
        assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
        assert!(text.ends_with("\r\n"), "{text}");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for path in [
        "queues",
        "concerts",
        "coupons",
        "rewards",
        "users",
        "jobs",
        "dead-letters",
        "actions",
        "concerts/show/reservations",
    ] {
        let lines = csv(&format!("/admin/{path}")).await;
        assert!(lines[0].split(',').count() >= 1 && !lines[0].is_empty(), "{path}: {lines:?}");
    }
    assert_eq!(csv("/admin/jobs").await.len(), 1, "the line of names");

    // More users than one page has, one of them a formula.
    let users = (0..520).map(|n| format!("user-{n:03}")).chain(["=cmd|'x'!A1".to_owned()]);
    let charges = users.map(async |user| api.charge(&user, 10).await);
    futures::future::join_all(charges).await;
    world.stores.wait_until_idle().await;
    let lines = csv("/admin/users").await;
    assert_eq!((lines[0].as_str(), lines.len()), ("user_id", 522));
    assert_eq!(lines[1], "'=cmd|'x'!A1");
    assert_eq!(lines[2..522], (0..520).map(|n| format!("user-{n:03}")).collect::<Vec<_>>());
    assert_eq!(csv("/admin/users?q=user-51").await.len(), 11);
    let queues = csv("/admin/queues").await;
    let (names, values): (Vec<_>, Vec<_>) =
        (queues[0].split(',').collect(), queues[1].split(',').collect());
    let column = |name: &str| values[names.iter().position(|known| *known == name).unwrap()];
    assert_eq!((column("id"), column("definition.max_active")), (CONCERT, "10000"));
    // An invalid query and an unknown object are problems.
    let call = |path: &str| api.admin_call(Method::GET, path).header("accept", "text/csv");
    call("/admin/users?limit=0").send().await.problem(422, "invalid_request");
    call("/admin/concerts/none/reservations").send().await.problem(404, "not_found");
    // JSON stays the default.
    let json = api.admin_call(Method::GET, "/admin/users").header("accept", "*/*");
    assert_eq!(json.send().await.header("content-type"), Some("application/json"));
}
